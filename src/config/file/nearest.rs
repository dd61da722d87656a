//! The nearest name to an unknown one.

/// Likeness from which a name is taken for another, by Jaro and Winkler: 1 is the same.
const LIKENESS_MIN: f64 = 0.8;

/// The most similar name, if any is similar.
pub fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |other: &str| strsim::jaro_winkler(name, other);
    let like = names.map(|other| (likeness(other), other));
    let like = like.filter(|(likeness, _)| *likeness >= LIKENESS_MIN);
    like.max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

/// The name in small letters and with underscores, as settings are called.
pub fn plain(name: &str) -> String {
    name.trim_start_matches('-')
        .to_lowercase()
        .replace('-', "_")
}
