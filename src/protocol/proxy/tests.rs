//! Headers of both versions, as the crate `ppp` sees them too.

use proptest::prelude::*;

use super::*;

/// A header's length, client and scheme.
type Parsed = (usize, Option<String>, bool);

/// The header in this text.
fn parsed(bytes: &[u8]) -> Result<Option<Parsed>, &'static str> {
    let header = parse(bytes).map_err(|Malformed(words)| words)?;
    Ok(header.map(|it| {
        (
            it.length,
            it.client.map(|client| client.to_string()),
            it.is_secure,
        )
    }))
}

fn client(bytes: &[u8]) -> Option<String> {
    let (length, client, _) = parsed(bytes).expect("a header").expect("all of it");
    assert_eq!(length, bytes.len());
    client
}

/// A header of version 2: of this command and family, with these addresses and values.
fn binary(command: u8, family: u8, addresses: &[u8], values: &[(u8, &[u8])]) -> Vec<u8> {
    let mut block = addresses.to_vec();
    for (kind, value) in values {
        block.push(*kind);
        block.extend(u16::try_from(value.len()).expect("short").to_be_bytes());
        block.extend(*value);
    }
    let length = u16::try_from(block.len()).expect("short").to_be_bytes();
    [SIGNATURE, &[command, family], &length, &block].concat()
}

const V4: &[u8] = &[203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x67, 0x01, 0xbb];

fn v6(source: &str) -> Vec<u8> {
    let source: Ipv6Addr = source.parse().expect("an address");
    [
        &source.octets()[..],
        &Ipv6Addr::LOCALHOST.octets(),
        &[0x12, 0x67, 0x01, 0xbb],
    ]
    .concat()
}

/// With the right checksum as its last value.
fn with_checksum(command: u8, family: u8, addresses: &[u8], values: &[(u8, &[u8])]) -> Vec<u8> {
    let all = [values, &[(0x03, &[0; 4][..])]].concat();
    let mut header = binary(command, family, addresses, &all);
    let checksum = !crc32c(!0, &header);
    let at = header.len() - 4;
    header[at..].copy_from_slice(&checksum.to_be_bytes());
    header
}

#[test]
fn lines_of_version_1() {
    assert_eq!(
        client(b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n").as_deref(),
        Some("203.0.113.9:4711")
    );
    assert_eq!(
        client(b"PROXY TCP6 2001:db8::9 ::1 0 65535\r\n").as_deref(),
        Some("[2001:db8::9]:0")
    );
    assert_eq!(
        client(b"PROXY TCP6 ::ffff:203.0.113.9 ::1 4711 443\r\n").as_deref(),
        Some("203.0.113.9:4711")
    );
    for unknown in [
        &b"PROXY UNKNOWN\r\n"[..],
        b"PROXY UNKNOWN ffff::1 x y z\r\n",
    ] {
        assert_eq!(client(unknown), None);
    }
    let followed = b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\nGET / HTTP/1.1\r\n";
    assert_eq!(
        parsed(followed),
        Ok(Some((32, Some("1.1.1.1:1".to_owned()), false)))
    );
}

#[test]
fn malformed_lines_are_refused() {
    for line in [
        "PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\n",
        "PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\r\n",
        "PROXY TCP4 203.0.113.9\r 10.0.0.1 4711 443\r\n",
        "PROXY TCP4  203.0.113.9 10.0.0.1 4711 443\r\n",
        "PROXY  TCP4 203.0.113.9 10.0.0.1 4711 443\r\n",
        "PROXY TCP4 203.0.113.9 10.0.0.1 4711 443 \r\n",
        "PROXY TCP4 203.0.113.9 10.0.0.1 4711 443 x\r\n",
        "PROXY TCP4 203.0.113.9 10.0.0.1 4711\r\n",
        "PROXY TCP4 203.0.113.9 10.0.0.1 04711 443\r\n",
        "PROXY TCP4 203.0.113.9 10.0.0.1 00 443\r\n",
        "PROXY TCP4 203.0.113.9 10.0.0.1 65536 443\r\n",
        "PROXY TCP4 203.0.113.9 10.0.0.1 +1 443\r\n",
        "PROXY TCP4 203.0.113.9 10.0.0.1 -1 443\r\n",
        "PROXY TCP4 203.0.113.009 10.0.0.1 4711 443\r\n",
        "PROXY TCP4 203.0.113 10.0.0.1 4711 443\r\n",
        "PROXY TCP4 2001:db8::9 ::1 4711 443\r\n",
        "PROXY TCP4 203.0.113.9 ::1 4711 443\r\n",
        "PROXY TCP6 203.0.113.9 10.0.0.1 4711 443\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 4711 443\r\n",
        "PROXY UDP4 203.0.113.9 10.0.0.1 4711 443\r\n",
        "PROXY tcp4 203.0.113.9 10.0.0.1 4711 443\r\n",
        "PROXY TCP4\r\n",
        "PROXY unknown\r\n",
        "PROXY \r\n",
        "PROXY\r\n",
        "proxy TCP4 203.0.113.9 10.0.0.1 4711 443\r\n",
        "GET / HTTP/1.1\r\n",
        "\x16\x03\x01",
        "\r\n\r\n",
    ] {
        // "\r\n\r\n" alone may be the begin of version 2.
        let whole = [line.as_bytes(), b"GET / HTTP/1.1\r\n"].concat();
        assert!(parsed(&whole).is_err(), "{line:?}");
    }
    assert!(parsed(b"PROXY TCP4 \xff\r\n").is_err());
    let endless = [b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat();
    assert_eq!(parsed(&endless[..106]), Ok(None));
    assert!(parsed(&endless[..107]).is_err());
    let longest = [&endless[..105], b"\r\n"].concat();
    assert_eq!(parsed(&longest), Ok(Some((107, None, false))));
}

#[test]
fn headers_of_version_2() {
    assert_eq!(
        client(&binary(0x21, 0x11, V4, &[])).as_deref(),
        Some("203.0.113.9:4711")
    );
    assert_eq!(
        client(&binary(0x21, 0x21, &v6("2001:db8::9"), &[])).as_deref(),
        Some("[2001:db8::9]:4711")
    );
    assert_eq!(
        client(&binary(0x21, 0x21, &v6("::ffff:203.0.113.9"), &[])).as_deref(),
        Some("203.0.113.9:4711")
    );
    // The load balancer itself, and what is no TCP connection.
    for header in [
        binary(0x20, 0x00, &[], &[]),
        binary(0x20, 0x11, V4, &[]),
        binary(0x20, 0x77, b"what it likes", &[]),
        binary(0x21, 0x00, &[], &[(0x04, b"")]),
        binary(0x21, 0x12, V4, &[]),
        binary(0x21, 0x22, &v6("::1"), &[]),
        binary(0x21, 0x31, &[0; 216], &[]),
        binary(0x21, 0x32, &[0; 216], &[]),
    ] {
        assert_eq!(client(&header), None, "{header:?}");
    }
    let tls = |flags| [&[flags, 0, 0, 0, 0][..], &[0x21, 0, 7], b"TLSv1.3"].concat();
    let secure = |flags| {
        parsed(&binary(0x21, 0x11, V4, &[(0x20, &tls(flags))]))
            .expect("one")
            .expect("whole")
            .2
    };
    assert!(secure(1) && secure(7) && !secure(0) && !secure(6));
    let named = binary(
        0x21,
        0x11,
        V4,
        &[(0x05, &[7; 128]), (0xea, b"\x01vpce-1"), (0x01, b"h2")],
    );
    assert_eq!(
        parse(&named).expect("one").expect("whole").unique_id,
        Some(&[7; 128][..])
    );
    let noop = vec![0; HEADER_BYTES_MAX - FIXED_BYTES - V4.len() - 3];
    let longest = binary(0x21, 0x11, V4, &[(0x04, &noop)]);
    assert_eq!(longest.len(), HEADER_BYTES_MAX);
    assert_eq!(client(&longest).as_deref(), Some("203.0.113.9:4711"));
}

#[test]
fn malformed_headers_of_version_2_are_refused() {
    let too_long = vec![0; HEADER_BYTES_MAX - FIXED_BYTES - V4.len() - 2];
    for (header, why) in [
        (binary(0x11, 0x11, V4, &[]), "version 1"),
        (binary(0x22, 0x11, V4, &[]), "command 2"),
        (binary(0x21, 0x13, V4, &[]), "transport 3"),
        (binary(0x21, 0x41, V4, &[]), "family 4"),
        (binary(0x21, 0x01, V4, &[]), "a transport of no family"),
        (binary(0x21, 0x11, &V4[..11], &[]), "half an address"),
        (binary(0x21, 0x21, V4, &[]), "an IPv4 address as IPv6"),
        (binary(0x21, 0x31, &[0; 215], &[]), "half a path"),
        (
            binary(0x21, 0x11, &[V4, &[4]].concat(), &[]),
            "a kind without a length",
        ),
        (
            binary(0x21, 0x11, &[V4, &[4, 0, 1]].concat(), &[]),
            "a value that is not there",
        ),
        (
            binary(0x21, 0x11, V4, &[(0x03, &[0; 4])]),
            "a wrong checksum",
        ),
        (
            binary(0x21, 0x11, V4, &[(0x03, &[0; 3])]),
            "three bytes of a checksum",
        ),
        (
            binary(0x21, 0x11, V4, &[(0x03, &[0; 5])]),
            "five bytes of a checksum",
        ),
        (
            binary(0x21, 0x11, V4, &[(0x05, &[0; 129])]),
            "a long unique id",
        ),
        (
            binary(0x21, 0x11, V4, &[(0x20, &[1; 4])]),
            "half of what is told of TLS",
        ),
        (
            binary(0x21, 0x11, V4, &[(0x20, &[1, 0, 0, 0, 0, 0x21, 0, 9])]),
            "a value that is too long for TLS",
        ),
        (
            binary(0x21, 0x11, V4, &[(0x20, &[0; 5]), (0x20, &[1, 0, 0, 0, 0])]),
            "TLS twice",
        ),
        (binary(0x21, 0x11, V4, &[(0x04, &too_long)]), "2,049 bytes"),
    ] {
        assert!(parsed(&header).is_err(), "{why}");
    }
}

#[test]
fn checksum_is_of_the_whole_header() {
    // The check value of the polynomial.
    assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
    let good = with_checksum(0x21, 0x11, V4, &[(0x04, b"abc")]);
    assert_eq!(client(&good).as_deref(), Some("203.0.113.9:4711"));
    for at in FIXED_BYTES..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        // What tells where the values are may also be wrong in another way.
        assert!(parsed(&bad).is_err() || at == good.len() - 7, "{at}");
    }
    let twice = [good.as_slice(), &good[good.len() - 7..]].concat();
    assert!(
        matches!(parsed(&twice), Ok(Some((length, ..))) if length == good.len()),
        "it is the client's"
    );
}

/// What a prefix of a header gives: nothing yet, until the last byte is there.
fn check_prefixes(header: &[u8]) {
    for end in 0..header.len() {
        assert_eq!(parsed(&header[..end]), Ok(None), "{end} of {header:?}");
    }
    let whole = parsed(header).expect("a header").expect("all of it");
    let followed = [header, b"\r\n\r\n\0\r\nQUIT\n PROXY "].concat();
    assert_eq!(parsed(&followed), Ok(Some(whole)));
}

#[test]
fn half_a_header_is_waited_for() {
    check_prefixes(b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n");
    check_prefixes(b"PROXY UNKNOWN\r\n");
    check_prefixes(&binary(0x20, 0, &[], &[]));
    check_prefixes(&with_checksum(
        0x21,
        0x21,
        &v6("::2"),
        &[(0x20, &[1, 0, 0, 0, 0])],
    ));
}

/// What the crate `ppp` makes of a header: the client, or that it takes none of it. None: it has no opinion.
fn by_ppp(bytes: &[u8]) -> Option<Result<Option<SocketAddr>, ()>> {
    use ppp::{HeaderResult, v1, v2};
    match HeaderResult::parse(bytes) {
        HeaderResult::V1(Ok(header)) => Some(Ok(match header.addresses {
            v1::Addresses::Tcp4(it) => Some(canonical(it.source_address.into(), it.source_port)),
            v1::Addresses::Tcp6(it) => Some(canonical(it.source_address.into(), it.source_port)),
            v1::Addresses::Unknown => None,
        })),
        HeaderResult::V2(Ok(header)) => {
            // It leaves values to its caller.
            let is_tcp =
                header.protocol == v2::Protocol::Stream && header.command == v2::Command::Proxy;
            if header.command == v2::Command::Proxy && header.tlvs().any(|value| value.is_err()) {
                return Some(Err(()));
            }
            Some(Ok(match header.addresses {
                v2::Addresses::IPv4(it) if is_tcp => {
                    Some(canonical(it.source_address.into(), it.source_port))
                }
                v2::Addresses::IPv6(it) if is_tcp => {
                    Some(canonical(it.source_address.into(), it.source_port))
                }
                _ => None,
            }))
        }
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Some(Err(())),
    }
}

/// Values without a checksum, a name and TLS, which are ours to judge.
fn plain_values() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let kind = prop_oneof![
        Just(0x01u8),
        Just(0x02),
        Just(0x04),
        Just(0x30),
        0xe0u8..=0xff
    ];
    proptest::collection::vec((kind, proptest::collection::vec(any::<u8>(), 0..40)), 0..4)
}

proptest! {
    #[test]
    fn binary_headers_are_what_ppp_says(
        command in prop_oneof![4 => Just(0x21u8), 1 => Just(0x20), 1 => any::<u8>()],
        (family, length) in prop_oneof![
            3 => Just((0x11u8, 12usize)), 3 => Just((0x21, 36)), 1 => Just((0x12, 12)), 1 => Just((0x22, 36)),
            1 => Just((0x31, 216)), 1 => Just((0x00, 0)), 1 => (any::<u8>(), 0usize..40),
        ],
        filler in any::<[u8; 32]>(),
        values in plain_values(),
        cut in proptest::option::of(0usize..60),
    ) {
        let addresses: Vec<u8> = filler.iter().copied().cycle().take(length).collect();
        let values: Vec<_> = values.iter().map(|(kind, value)| (*kind, &value[..])).collect();
        let mut header = binary(command, family, &addresses, &values);
        if let Some(cut) = cut {
            header.truncate(header.len().saturating_sub(cut));
        }
        let ours = parse(&header);
        match (ours, by_ppp(&header)) {
            (Ok(Some(header)), Some(Ok(client))) => prop_assert_eq!(header.client, client),
            // Of the load balancer's own it looks at the family all the same.
            (Ok(Some(_)), Some(Err(()))) => prop_assert_eq!(command, 0x20),
            (Ok(None) | Err(_), Some(Err(()))) => {}
            // It knows neither a transport without a family nor one without a transport as wrong, and what stands behind the
            // addresses it does not read.
            (Err(_), Some(Ok(_))) => {
                let own_lengths = [(0x00, 0), (0x11, 12), (0x12, 12), (0x21, 36), (0x22, 36), (0x31, 216), (0x32, 216)];
                prop_assert!(!own_lengths.contains(&(family, length)));
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn lines_are_what_ppp_says(
        family in prop_oneof![Just("TCP4"), Just("TCP6"), Just("UNKNOWN"), Just("UDP4"), Just("tcp4")],
        addresses in proptest::collection::vec(
            prop_oneof![
                any::<std::net::Ipv4Addr>().prop_map(|ip| ip.to_string()),
                any::<std::net::Ipv6Addr>().prop_map(|ip| ip.to_string()),
                "[0-9a-f:.]{0,9}",
            ], 2..3),
        ports in proptest::collection::vec(
            prop_oneof![4 => any::<u16>().prop_map(|port| port.to_string()), 1 => "[0-9+ -]{0,6}"], 2..3),
        end in prop_oneof![4 => Just("\r\n"), 1 => Just("\n"), 1 => Just(" \r\n")],
    ) {
        let line = format!("PROXY {family} {} {}{end}", addresses.join(" "), ports.join(" "));
        match (parse(line.as_bytes()), by_ppp(line.as_bytes())) {
            (Ok(Some(header)), Some(Ok(client))) => prop_assert_eq!(header.client, client),
            (Ok(None) | Err(_), Some(Err(()))) => {}
            // Its numbers may have a sign or zeros before them, and a line of nobody known ends without a CR too.
            (Err(_), Some(Ok(_))) => {
                let is_odd = |port: &String| port.starts_with('+') || (port.len() > 1 && port.starts_with('0'));
                let is_cut = family == "UNKNOWN" && end == "\n";
                prop_assert!(is_cut || ports.iter().any(is_odd), "{}", line);
            }
            (Ok(Some(header)), Some(Err(()))) => prop_assert!(header.client.is_none(), "{}", line),
            other => prop_assert!(false, "{:?} {}", other, line),
        }
    }

    /// Any bytes are read, however they are cut, and a part never says another thing than the whole.
    #[test]
    fn any_bytes_are_read(
        begin in prop_oneof![Just(&b""[..]), Just(SIGNATURE), Just(LINE_BEGIN), Just(&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"[..])],
        rest in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let bytes = [begin, &rest].concat();
        let whole = parse(&bytes);
        for end in 0..bytes.len() {
            match parse(&bytes[..end]) {
                Ok(None) => {}
                part => prop_assert_eq!(part, whole),
            }
        }
    }
}
