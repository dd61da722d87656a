//! Addresses in words, and listeners that do not go together.

use super::*;

fn parse(text: &str) -> Listener {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn forms_of_an_address() {
    let tcp = |text: &str| ListenAddress::Tcp(text.parse().expect("an address"));
    for (text, address, surface) in [
        ("127.0.0.1:8080", tcp("127.0.0.1:8080"), None),
        ("http://0.0.0.0:80", tcp("0.0.0.0:80"), None),
        (
            "http://[::]:80/#public",
            tcp("[::]:80"),
            Some(Surface::Public),
        ),
        (
            "localhost:8080#all",
            ListenAddress::Localhost(8080),
            Some(Surface::All),
        ),
        ("http://localhost:0", ListenAddress::Localhost(0), None),
        (
            "unix:/run/a.sock#admin",
            ListenAddress::unix("/run/a.sock"),
            Some(Surface::Admin),
        ),
        (
            "unix:///run/a.sock",
            ListenAddress::unix("/run/a.sock"),
            None,
        ),
        (
            "unix:a#b.sock#all",
            ListenAddress::unix("a#b.sock"),
            Some(Surface::All),
        ),
        (
            "unix:/run/a.sock?mode=0600&group=www-data#admin",
            ListenAddress::Unix {
                path: "/run/a.sock".into(),
                mode: 0o600,
                group: Some("www-data".to_owned()),
            },
            Some(Surface::Admin),
        ),
        (
            "unix:/run/a.sock?group=33",
            ListenAddress::Unix {
                path: "/run/a.sock".into(),
                mode: UNIX_MODE,
                group: Some("33".to_owned()),
            },
            None,
        ),
        ("[::]:80?ipv6_only=true", tcp("[::]:80"), None),
        (":8080", tcp("[::]:8080"), None),
        ("http://:80/#admin", tcp("[::]:80"), Some(Surface::Admin)),
        (":0?ipv6_only=true", tcp("[::]:0"), None),
        ("fd:web", ListenAddress::Inherited("web".to_owned()), None),
    ] {
        let listener = parse(text);
        assert_eq!(
            (&listener.address, listener.surface),
            (&address, surface),
            "{text}"
        );
        assert_eq!(
            parse(&listener.to_string()),
            listener,
            "it reads what it writes"
        );
    }
}

#[test]
fn https_is_tls() {
    for text in [
        "https://127.0.0.1:443",
        "https://[::]:443?ipv6_only=true#public",
        "https://localhost:0",
        "https://fd:web#admin",
    ] {
        let listener = parse(text);
        assert!(listener.tls, "{text}");
        assert_eq!(parse(&listener.to_string()), listener, "{text}");
    }
    assert_eq!(
        parse("https://127.0.0.1:443/"),
        parse("127.0.0.1:443").with_tls()
    );
    assert!(!parse("http://127.0.0.1:80").tls);
    let over_unix = Listeners::of(&[parse("https://unix:/run/a.sock")]);
    let error = over_unix.check().expect_err("no TLS over it").to_string();
    assert!(error.contains("TCP"), "{error}");
    let why = Listeners::of(&[parse("https://127.0.0.1:443")]).why_rights_must_be_set();
    assert!(why.is_some_and(|why| why.contains("TLS")));
}

#[test]
fn what_is_no_address_is_told_what_is() {
    for (text, word) in [
        ("", "127.0.0.1:8080"),
        ("localhost", "127.0.0.1:8080"),
        ("example.com:80", "127.0.0.1:8080"),
        ("127.0.0.1", "127.0.0.1:8080"),
        ("localhost:99999", "127.0.0.1:8080"),
        (":", ":PORT"),
        (":99999", ":PORT"),
        ("*:8080", ":PORT"),
        ("http://127.0.0.1:80/x", "127.0.0.1:8080"),
        ("https://127.0.0.1:80/x", "127.0.0.1:8080"),
        ("https://http://127.0.0.1:80", "127.0.0.1:8080"),
        ("unix:", "unix:/run/umbel.sock"),
        ("unix:@umbel", "permissions"),
        ("fd:", "fd:web"),
        ("127.0.0.1:80#private", "#public, #admin or #all"),
        ("127.0.0.1:80#", "#public, #admin or #all"),
        ("unix:/a?mode=999", "octal"),
        ("unix:/a?mode=1777", "octal"),
        ("unix:/a?owner=me", "group=NAME"),
        ("127.0.0.1:80?mode=0660", "unix sockets"),
        ("[::]:80?ipv6_only", "true or false"),
    ] {
        let error = text.parse::<Listener>().expect_err(text);
        assert!(error.contains(word), "{text}: {error}");
    }
}

#[test]
fn an_admin_listener_makes_the_others_public() {
    let surfaces = |texts: &[&str]| -> Vec<_> {
        let asked: Vec<_> = texts.iter().map(|text| parse(text)).collect();
        Listeners::of(&asked)
            .with_surfaces()
            .map(|(_, surface)| surface)
            .collect()
    };
    assert_eq!(surfaces(&[]), [Surface::All]);
    assert_eq!(
        surfaces(&["127.0.0.1:1", "127.0.0.1:2#public"]),
        [Surface::All, Surface::Public]
    );
    assert_eq!(
        surfaces(&["127.0.0.1:1", "127.0.0.1:2#admin", "127.0.0.1:3#all"]),
        [Surface::Public, Surface::Admin, Surface::All]
    );
}

#[test]
fn listeners_differ() {
    let check = |texts: &[&str]| {
        let asked: Vec<_> = texts.iter().map(|text| parse(text)).collect();
        Listeners::of(&asked).check()
    };
    check(&["127.0.0.1:0", "127.0.0.1:0", "unix:/a", "unix:/b", "fd:a"]).expect("they differ");
    for twice in ["127.0.0.1:1", "unix:/a", "fd:a", "localhost:1"] {
        let error = check(&[twice, "127.0.0.1:9", twice]).expect_err(twice);
        assert!(error.to_string().contains("twice"), "{error}");
    }
    for (wrong, word) in [
        ("0.0.0.0:1?ipv6_only=true", "IPv6 address"),
        ("unix:/a?group=", "a name or a number"),
    ] {
        let error = check(&[wrong]).expect_err(wrong);
        assert!(error.to_string().contains(word), "{error}");
    }
    let asked = ["127.0.0.1:1", "127.0.0.1:2"].map(|text| parse(text).named("a"));
    let error = Listeners::of(&asked)
        .check()
        .expect_err("two have one name");
    assert!(error.to_string().contains("called a too"), "{error}");
    assert!(check(&vec!["127.0.0.1:0"; LISTENERS_MAX]).is_ok());
    assert!(check(&vec!["127.0.0.1:0"; LISTENERS_MAX + 1]).is_err());
}
