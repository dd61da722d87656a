//! `umbel check --config` of certificates.

use std::fs;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::file::Folder;
use super::{check, run, umbel};

const DAY: Duration = Duration::from_secs(86_400);

fn params(host: &str, days: u32) -> CertificateParams {
    let mut params = CertificateParams::new([host.to_owned()]).expect("a host");
    params.not_before = (SystemTime::now() - 30 * DAY).into();
    params.not_after = (SystemTime::now() + days * DAY - 20 * DAY).into();
    params
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("an authority")
}

/// The report about these files, and all that is said of them.
fn report(folder: &Folder, chain: &str, key: &str) -> (i32, String) {
    folder.write("chain.pem", chain);
    folder.write("key.pem", key);
    folder.write(
        "umbel.toml",
        "[[certificate]]\ncertificate_file = \"chain.pem\"\nkey_file = \"key.pem\"\n",
    );
    let (code, report) = check(folder, &[], &[]);
    let mut said = Vec::new();
    for kind in ["errors", "warnings"] {
        for problem in report[kind].as_array().expect("a list") {
            assert_eq!(problem["line"], 1, "{problem}");
            said.push(problem["message"].as_str().expect("words").to_owned());
        }
    }
    for certificate in report["certificates"].as_array().expect("a list") {
        said.push(certificate.as_str().expect("words").to_owned());
    }
    (code, said.join("\n"))
}

#[test]
fn certificates_are_checked() {
    let folder = Folder::with("umbel.toml", "");
    let issuer = authority("Example Authority");
    let key = KeyPair::generate().expect("a key");
    let (key_pem, other) = (key.serialize_pem(), KeyPair::generate().expect("a key"));
    let signed = |days| {
        let leaf = params("push.example", days).signed_by(&key, &issuer);
        leaf.expect("a certificate").pem()
    };
    let alone = params("push.example", 100)
        .self_signed(&key)
        .expect("a certificate")
        .pem();
    let whole = signed(100) + &issuer.pem();
    let rsa = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("a key");
    let of_rsa = params("push.example", 100).signed_by(&rsa, &issuer);
    let of_rsa = of_rsa.expect("a certificate").pem() + &issuer.pem();
    let weak = include_str!("../../src/x509/tests/old.pem");
    for (chain, key, code, told) in [
        (
            &whole,
            &key_pem,
            0,
            "certificate for push.example: ECDSA of 256 bits, of Example Authority, until ",
        ),
        (&signed(100), &key_pem, 0, "chain is not complete"),
        (
            &(signed(100) + &alone),
            &key_pem,
            0,
            "certificate 2 in the file is not the issuer",
        ),
        (&alone, &key_pem, 0, "signed by itself"),
        (&signed(25), &key_pem, 0, "days: renew it"),
        (&signed(10), &key_pem, 0, "has ended at "),
        (
            &whole,
            &other.serialize_pem(),
            1,
            "is not that of the certificate",
        ),
        (
            &of_rsa,
            &rsa.serialize_pem(),
            0,
            "full handshakes a second and core",
        ),
        (&weak.to_owned(), &key_pem, 1, "cannot be used"),
        (&String::new(), &key_pem, 1, "holds no certificate"),
    ] {
        let (found, said) = report(&folder, chain, key);
        assert_eq!(found, code, "{said}");
        assert!(said.contains(told), "{told}: {said}");
    }
    let (_, said) = report(&folder, &whole, &key_pem);
    assert!(said.contains("1 behind it"), "{said}");
    fs::remove_file(folder.path("key.pem")).expect("it is there");
    let config = folder.path("umbel.toml");
    let (code, out, _) = run(&mut umbel(&["check", "--config", &config]));
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("key.pem cannot be read"), "{out}");
}
