//! Publishes through the control API that are sent again, and say how old they are.

use serde_json::{Value, json};

use crate::client::{Api, finish, start};
use crate::support::peers::Http;

/// Status and body of a publish with these header lines.
fn publish(http: &mut Http, lines: &str, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let head =
        "POST /api/v1/publish HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer operator\r\n";
    let length = format!("Content-Length: {}\r\n", body.len());
    let request = format!("{head}Content-Type: application/json\r\n{length}{lines}\r\n{body}");
    http.send(request.as_bytes());
    let answer = http.answer().expect("an answer");
    let value = serde_json::from_slice(&answer.body).expect("JSON");
    (answer.status, value)
}

fn resent(key: &str, first_sent_ms: &str) -> String {
    format!("Idempotency-Key: {key}\r\nUmbel-First-Sent-Ms: {first_sent_ms}\r\n")
}

#[test]
fn publish_of_unknown_age_is_refused() {
    let server = start();
    let mut http = Http::connect(server.address);
    let one = json!({"topic": "rooms/a", "data": "x"});
    let many = json!({"topics": ["rooms/a", "rooms/b"], "data": "y"});
    let (status, placed) = publish(&mut http, &resent("one", "0"), &one);
    assert_eq!((status, &placed["offset"]), (200, &json!(1)), "{placed}");
    let (status, placed) = publish(&mut http, &resent("many", "0"), &many);
    assert_eq!((status, &placed["results"][1]["offset"]), (200, &json!(1)));
    // They were sent before the server began, or are forgotten by now.
    for unknown in ["50000", "3600000", "4294967295"] {
        let (status, answer) = publish(&mut http, &resent(unknown, unknown), &one);
        assert_eq!(
            (status, &answer["error"]["code"]),
            (409, &json!("conflict")),
            "{answer}"
        );
        let (status, answer) = publish(&mut http, &resent(unknown, unknown), &many);
        let codes: Vec<&Value> = (0..2)
            .map(|at| &answer["results"][at]["error"]["code"])
            .collect();
        assert_eq!(
            (status, codes),
            (422, vec![&json!("conflict"); 2]),
            "{answer}"
        );
    }
    // What is known is answered all the same.
    let (status, again) = publish(&mut http, &resent("one", "3600000"), &one);
    assert_eq!(
        (status, &again["offset"], &again["duplicate"]),
        (200, &json!(1), &json!(true))
    );
    let (status, again) = publish(&mut http, &resent("many", "3600000"), &many);
    assert_eq!(
        (status, &again["results"][0]["duplicate"]),
        (200, &json!(true)),
        "{again}"
    );
    let page = Api::of(server.address, "operator").get("/history?topic=rooms%2Fa");
    assert_eq!(
        page["publications"].as_array().map(Vec::len),
        Some(2),
        "{page}"
    );
    finish(server);
}

#[test]
fn wrong_age_names_its_header() {
    let server = start();
    let body = json!({"topic": "rooms/a", "data": "x"});
    for lines in [
        "Umbel-First-Sent-Ms: 1\r\n".to_owned(),
        resent("a", "+1"),
        resent("a", ""),
        resent("a", "4294967296"),
        resent("a", "1\r\nUmbel-First-Sent-Ms: 1"),
    ] {
        // Its body is not read, so the connection ends with it.
        let mut http = Http::connect(server.address);
        let (status, answer) = publish(&mut http, &lines, &body);
        let error = &answer["error"];
        assert_eq!(
            (status, &error["code"]),
            (400, &json!("invalid_field")),
            "{lines}"
        );
        assert_eq!(error["field"], "Umbel-First-Sent-Ms", "{answer}");
    }
    finish(server);
}
