//! Changes of certificates, by settings and by files alone.

use std::fs;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair};

use super::*;

/// A folder of one test, which is gone behind it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let name = format!("umbel-terms-{name}-{}", std::process::id());
        let folder = Folder(std::env::temp_dir().join(name));
        fs::create_dir_all(&folder.0).expect("a folder can be made");
        folder
    }

    /// Files of this name, which need not be there.
    fn files(&self, name: &str) -> CertificateFiles {
        let path = |end: &str| self.0.join(format!("{name}.{end}"));
        CertificateFiles::new(path("pem"), path("key"))
    }

    /// Writes a certificate for a host, that counts between these days from now, with its key.
    fn write(&self, name: &str, host: &str, days: std::ops::Range<i64>) -> CertificateFiles {
        let files = self.files(name);
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([host.to_owned()]).expect("a host");
        let day = |days: i64| {
            let moment = wall_seconds()
                .checked_add_signed(days * 86_400)
                .expect("in range");
            (UNIX_EPOCH + Duration::from_secs(moment)).into()
        };
        (params.not_before, params.not_after) = (day(days.start), day(days.end));
        let leaf = params.self_signed(&key).expect("a certificate");
        fs::write(&files.certificate_file, leaf.pem()).expect("writable");
        fs::write(&files.key_file, key.serialize_pem()).expect("writable");
        files
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn config(certificates: &[&CertificateFiles]) -> Config {
    Config {
        certificates: certificates.iter().map(|files| (*files).clone()).collect(),
        ..Config::default()
    }
}

fn names(terms: &TlsTerms) -> Vec<String> {
    let all = terms.certificates().all();
    all.iter().map(|it| it.name().to_owned()).collect()
}

fn copy(from: &Path, to: &Path) {
    // Another inode, as of a rename.
    let beside = to.with_extension("new");
    fs::copy(from, &beside).expect("it can be copied");
    fs::rename(beside, to).expect("it can be renamed");
}

#[test]
fn changes_are_all_or_nothing() {
    let folder = Folder::new("all");
    let (a, b) = (
        folder.write("a", "a.example", -1..90),
        folder.write("b", "b.example", -1..90),
    );
    let terms = TlsTerms::open(&config(&[&a])).expect("it can stand");
    assert_eq!(names(&terms), ["a.example"]);
    let prepared = terms.prepare(&config(&[&b, &a])).expect("both can stand");
    assert_eq!(names(&terms), ["a.example"], "nothing changes yet");
    terms.take(prepared);
    assert_eq!(names(&terms), ["b.example", "a.example"]);
    let missing = folder.files("missing");
    let old = folder.write("old", "old.example", -9..-1);
    let early = folder.write("early", "early.example", 1..9);
    for (files, told) in [
        (&missing, "cannot be read"),
        (&old, "has ended at "),
        (&early, "does not count before "),
    ] {
        let error = terms.prepare(&config(&[&a, files])).expect_err(told);
        assert!(error.to_string().contains(told), "{error}");
        assert_eq!(error.row(), Some(1));
    }
    assert_eq!(names(&terms), ["b.example", "a.example"]);
    // With one that has ended a server starts, and goes on.
    let terms = TlsTerms::open(&config(&[&old])).expect("clients may not look at it");
    terms
        .prepare(&config(&[&old, &a]))
        .expect("it is in force already");
}

#[test]
fn files_that_change() {
    let folder = Folder::new("files");
    let a = folder.write("a", "a.example", -1..90);
    let terms = TlsTerms::open(&config(&[&a])).expect("it can stand");
    assert!(!terms.is_changed());
    let next = folder.write("next", "next.example", -1..90);
    copy(&next.certificate_file, &a.certificate_file);
    assert!(terms.is_changed());
    let error = terms.reread().expect_err("the key is yet to come");
    assert!(
        matches!(error.error, TlsError::Mismatch { .. }),
        "{error:?}"
    );
    assert_eq!(names(&terms), ["a.example"]);
    copy(&next.key_file, &a.key_file);
    terms.reread().expect("both are there");
    assert_eq!(names(&terms), ["next.example"]);
    assert!(!terms.is_changed());
    fs::remove_file(&a.key_file).expect("it is there");
    assert!(terms.is_changed());
    assert!(terms.reread().is_err());
    assert_eq!(names(&terms), ["next.example"]);
}

#[test]
fn linked_folders_that_are_swapped() {
    // As Kubernetes does it: the files are links into a folder that is a link.
    let folder = Folder::new("links");
    let (a, b) = (
        folder.write("a", "a.example", -1..90),
        folder.write("b", "b.example", -1..90),
    );
    for (name, files) in [("1", &a), ("2", &b)] {
        let into = folder.0.join(name);
        fs::create_dir(&into).expect("a folder");
        fs::copy(&files.certificate_file, into.join("tls.crt")).expect("a copy");
        fs::copy(&files.key_file, into.join("tls.key")).expect("a copy");
    }
    let data = folder.0.join("..data");
    std::os::unix::fs::symlink("1", &data).expect("a link");
    let files = CertificateFiles::new(data.join("tls.crt"), data.join("tls.key"));
    let terms = TlsTerms::open(&config(&[&files])).expect("it can stand");
    assert_eq!(names(&terms), ["a.example"]);
    let beside = folder.0.join("..data_tmp");
    std::os::unix::fs::symlink("2", &beside).expect("a link");
    fs::rename(&beside, &data).expect("it can be renamed");
    assert!(terms.is_changed());
    terms.reread().expect("it can stand");
    assert_eq!(names(&terms), ["b.example"]);
}

#[test]
fn wrong_files_are_told() {
    let folder = Folder::new("wrong");
    let a = folder.write("a", "a.example", -1..90);
    let text = |name: &str, text: &str| {
        let path = folder.0.join(name);
        fs::write(&path, text).expect("writable");
        path
    };
    let (empty, words) = (text("empty", ""), text("words", "hello"));
    let encrypted = text(
        "encrypted",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let cut = text("cut", "-----BEGIN CERTIFICATE-----\nMIIB");
    let wrong = text(
        "wrong",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let large = text("large", &" ".repeat(1 << 21));
    let (certificate, key) = (&a.certificate_file, &a.key_file);
    for (certificate, key, told) in [
        (&empty, key, "holds no certificate in PEM"),
        (&words, key, "holds no certificate in PEM"),
        (key, key, "holds no certificate in PEM"),
        (&cut, key, "is not PEM"),
        (&wrong, key, "cannot be used"),
        (&large, key, "has more than 1048576 bytes"),
        (&folder.0, key, "cannot be read"),
        (certificate, &empty, "holds no private key in PEM"),
        (certificate, certificate, "holds no private key in PEM"),
        (certificate, &encrypted, "openssl pkey"),
    ] {
        let files = CertificateFiles::new(certificate, key);
        let error = TlsTerms::open(&config(&[&files])).expect_err(told);
        assert!(error.to_string().contains(told), "{error}");
    }
    let mut config = config(&[&a]);
    config.tls_ticket_key_file = Some(words);
    let error = TlsTerms::open(&config).expect_err("no keys");
    assert!(error.to_string().contains("5 bytes"), "{error}");
    assert_eq!(error.setting(), "tls_ticket_key_file");
}
