//! The nearest name to an unknown one.

/// Likeness from which a name is taken for another, by Jaro and Winkler: 1 is the same.
#[cfg(feature = "config-file")]
const LIKENESS_MIN: f64 = 0.8;

/// The most similar name, if any is similar. Without the crate's feature `config-file` none is.
#[cfg(feature = "config-file")]
pub fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |other: &str| strsim::jaro_winkler(name, other);
    let like = names.map(|other| (likeness(other), other));
    let like = like.filter(|(likeness, _)| *likeness >= LIKENESS_MIN);
    like.max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

/// The most similar name: none, without the crate's feature `config-file`.
#[cfg(not(feature = "config-file"))]
pub fn nearest<'a>(_name: &str, _names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    None
}
