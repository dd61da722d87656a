//! Entries in all forms, and entries of clients before those of proxies.

use proptest::prelude::*;

use super::*;

/// Everything in 10.0.0.0/8 is a proxy.
fn trusts(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == 10)
}

fn lines(lines: &[(&str, &str)]) -> String {
    let lines = lines
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"));
    lines.collect()
}

/// The client by these lines of `X-Forwarded-For`.
fn client(values: &[&str]) -> Option<String> {
    let values: Vec<_> = values
        .iter()
        .map(|value| ("X-Forwarded-For", *value))
        .collect();
    let text = lines(&values);
    let read = read(
        FieldLines::new(text.as_bytes()),
        ForwardedHeader::XForwardedFor,
        trusts,
    );
    read.client.map(|client| client.to_string())
}

fn forwarded(values: &[&str]) -> (Option<String>, Option<bool>, Option<String>) {
    let values: Vec<_> = values.iter().map(|value| ("forwarded", *value)).collect();
    let text = lines(&values);
    let read = read(
        FieldLines::new(text.as_bytes()),
        ForwardedHeader::Forwarded,
        trusts,
    );
    let client = read.client.map(|client| client.to_string());
    (client, read.is_secure, read.host.map(str::to_owned))
}

#[test]
fn client_is_the_right_most_that_is_no_proxy() {
    for (values, expected) in [
        (&["203.0.113.9"][..], Some("203.0.113.9:0")),
        (&["1.1.1.1, 203.0.113.9"], Some("203.0.113.9:0")),
        (&["1.1.1.1, 203.0.113.9, 10.0.0.2"], Some("203.0.113.9:0")),
        (
            &["1.1.1.1", "203.0.113.9", "10.0.0.2 ,\t10.0.0.3"],
            Some("203.0.113.9:0"),
        ),
        // All are trusted.
        (&["10.0.0.1, 10.0.0.2"], Some("10.0.0.2:0")),
        // What is no address ends the walk.
        (&["203.0.113.9, unknown, 10.0.0.2"], Some("10.0.0.2:0")),
        (&["203.0.113.9,,10.0.0.2"], Some("10.0.0.2:0")),
        (&["203.0.113.9, "], None),
        (&["203.0.113.9", ""], None),
        (&["203.0.113.9, _hidden"], None),
        (&[""], None),
        (&[], None),
        // All forms of an address, and what looks like one.
        (&["203.0.113.9:4711"], Some("203.0.113.9:4711")),
        (&["2001:db8::1"], Some("[2001:db8::1]:0")),
        (&["[2001:db8::1]"], Some("[2001:db8::1]:0")),
        (&["[2001:db8::1]:65535"], Some("[2001:db8::1]:65535")),
        (&["::ffff:203.0.113.9"], Some("203.0.113.9:0")),
        (&["1.1.1.1, [::ffff:10.0.0.1]:80"], Some("1.1.1.1:0")),
        (&["203.0.113.9:65536"], None),
        (&["203.0.113.9:"], None),
        (&["203.0.113.9:+1"], None),
        (&["203.0.113.09"], None),
        (&["203.0.113"], None),
        (&["[2001:db8::1"], None),
        (&["[2001:db8::1]x"], None),
        (&["[203.0.113.9]"], None),
        (&["fe80::1%eth0"], None),
        (&["\"203.0.113.9\""], None),
        (&["for=203.0.113.9"], None),
    ] {
        assert_eq!(client(values).as_deref(), expected, "{values:?}");
    }
}

#[test]
fn no_more_than_the_limits_is_looked_at() {
    let proxies = |count| vec!["10.0.0.1"; count].join(",");
    let behind = |count| client(&[&format!("203.0.113.9,{}", proxies(count))]);
    assert_eq!(behind(ENTRIES_MAX - 1).as_deref(), Some("203.0.113.9:0"));
    assert_eq!(behind(ENTRIES_MAX).as_deref(), Some("10.0.0.1:0"));
    // The same in lines of their own.
    let lines = |count| [vec!["203.0.113.9"], vec!["10.0.0.1"; count]].concat();
    assert_eq!(
        client(&lines(ENTRIES_MAX - 1)).as_deref(),
        Some("203.0.113.9:0")
    );
    assert_eq!(client(&lines(ENTRIES_MAX)).as_deref(), Some("10.0.0.1:0"));
    // The client's entry ends at the last byte, and beyond it.
    let padded = |length: usize| {
        let blanks = " ".repeat(length - "203.0.113.9".len() - 2 - "10.0.0.1".len());
        client(&[&format!("203.0.113.9,{blanks}10.0.0.1")])
    };
    assert_eq!(padded(BYTES_MAX).as_deref(), Some("203.0.113.9:0"));
    assert_eq!(padded(BYTES_MAX + 1).as_deref(), Some("10.0.0.1:0"));
}

#[test]
fn scheme_and_host_count_only_once() {
    let read = |texts: &[(&str, &str)]| {
        let text = lines(texts);
        let read = read(
            FieldLines::new(text.as_bytes()),
            ForwardedHeader::XForwardedFor,
            trusts,
        );
        (read.is_secure, read.host.map(str::to_owned))
    };
    let (proto, host) = ("X-Forwarded-Proto", "x-forwarded-host");
    assert_eq!(
        read(&[(proto, "https"), (host, "a:1")]),
        (Some(true), Some("a:1".into()))
    );
    assert_eq!(read(&[(proto, "HTTP")]), (Some(false), None));
    assert_eq!(read(&[(proto, "wss")]), (Some(true), None));
    for wrong in [
        &[(proto, "https, http")][..],
        &[(proto, "https"), (proto, "https")],
        &[(proto, "gopher")],
        &[(proto, "")],
        &[(host, "a"), (host, "a")],
        &[(host, "a, b")],
        &[(host, "")],
        // Of the other header nothing is read.
        &[("Forwarded", "for=1.1.1.1;proto=https;host=a")],
    ] {
        assert_eq!(read(wrong), (None, None), "{wrong:?}");
    }
}

#[test]
fn elements_of_forwarded() {
    let told = |client: &str, is_secure, host: Option<&str>| {
        (Some(client.to_owned()), is_secure, host.map(str::to_owned))
    };
    let nothing = (None, None, None);
    let whole = "for=\"[2001:db8::1]:5\";proto=https;host=x";
    let expected = told("[2001:db8::1]:5", Some(true), Some("x"));
    assert_eq!(forwarded(&[whole]), expected);
    assert_eq!(forwarded(&[&format!("for=1.1.1.1, {whole}")]), expected);
    assert_eq!(
        forwarded(&[whole, "For=10.0.0.1; proto=http;by=10.0.0.2"]),
        expected
    );
    let quoted = "For=\"203.0.113.9:4711\" ; Host=\"a,b\"";
    assert_eq!(
        forwarded(&[quoted]),
        told("203.0.113.9:4711", None, Some("a,b"))
    );
    assert_eq!(
        forwarded(&["for=203.0.113.9;"]),
        told("203.0.113.9:0", None, None)
    );
    // The scheme is told by whom tells the client.
    assert_eq!(
        forwarded(&["for=1.1.1.1;proto=https, for=203.0.113.9"]).1,
        None
    );
    assert_eq!(forwarded(&["proto=https"]), (None, Some(true), None));
    for wrong in [
        "for=unknown",
        "for=_hidden",
        "for=203.0.113.9;for=203.0.113.9",
        "for=203.0.113.9;proto=https;Proto=http",
        "for=203.0.113.9 x",
        "for=",
        "for=\"203.0.113.9",
        "for=203.0.113.9\"",
        "for=\"203.0.113.\\9\"",
        "for",
        "203.0.113.9",
        "",
        ";",
        "for =203.0.113.9",
    ] {
        assert_eq!(forwarded(&[wrong]), nothing, "{wrong:?}");
    }
}

proptest! {
    /// Whatever a client writes, the entry that a proxy puts behind it says who the client is.
    #[test]
    fn nobody_chooses_his_own_address(
        written in proptest::collection::vec("[ -~]{0,80}", 0..4),
        same_line in any::<bool>(),
        v6 in any::<bool>(),
    ) {
        let (plain, element) = match v6 {
            true => ("2001:db8::7", "for=\"[2001:db8::7]\";proto=http"),
            false => ("203.0.113.7", "for=203.0.113.7;proto=http"),
        };
        let with = |own: &str| {
            let mut values = written.clone();
            match values.last_mut() {
                Some(last) if same_line => *last = format!("{last}, {own}"),
                _ => values.push(own.to_owned()),
            }
            values
        };
        let expected = Some(SocketAddr::new(plain.parse().expect("an address"), 0).to_string());
        let values = with(plain);
        let values: Vec<_> = values.iter().map(String::as_str).collect();
        prop_assert_eq!(client(&values), expected.clone());
        let values = with(element);
        let values: Vec<_> = values.iter().map(String::as_str).collect();
        prop_assert_eq!(forwarded(&values), (expected, Some(false), None));
    }

    /// Any bytes are read, and what is told is an address that stands there.
    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let line = [b"Forwarded: ", &bytes[..], b"\r\nX-Forwarded-For: ", &bytes[..], b"\r\n"].concat();
        for header in [ForwardedHeader::Forwarded, ForwardedHeader::XForwardedFor] {
            let told = read(FieldLines::new(&line), header, trusts);
            prop_assert!(told.client.is_none_or(|client| client.ip() == client.ip().to_canonical()));
        }
    }
}
