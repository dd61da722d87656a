//! Two guests who talk: nobody is alone in the chat.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use umbel::{Handle, Message, PublishError, PublishOptions};

use super::chance::Chance;

/// Guests see each other, and what was said before they came.
pub const RULE: &str = "chat/** history=50 history_age_max_ms=1h presence=on";

const TOPIC: &str = "chat/garden";
/// Between two lines.
const PAUSE: Duration = Duration::from_secs(6);
const LOOK: Duration = Duration::from_millis(200);

const LINES: [(&str, &str); 10] = [
    ("Fern", "Morning! Anybody here but us?"),
    (
        "Dill",
        "The list on the side says who. It moves when somebody comes or goes.",
    ),
    (
        "Fern",
        "I came late. What you said before stood here already.",
    ),
    (
        "Dill",
        "That is the topic's history: fifty lines of it, for an hour.",
    ),
    ("Fern", "And if my train goes through a tunnel?"),
    (
        "Dill",
        "Then your page connects again and gets exactly the lines that it missed.",
    ),
    ("Fern", "What if it was too many?"),
    (
        "Dill",
        "Then it is told so, and loads anew. Nothing is missing in silence.",
    ),
    (
        "Fern",
        "Open this page in a second window, and talk to yourself.",
    ),
    ("Dill", "She does that too, when I am not here."),
];

/// Talks until the server ends.
pub fn publish(handle: &Handle) {
    let mut chance = Chance::new();
    for (name, text) in LINES.iter().cycle() {
        let line = json!({"name": name, "text": text}).to_string();
        let said = handle.publish_with(TOPIC, Message::Text(&line), PublishOptions::new().json());
        if said == Err(PublishError::Closed) {
            return;
        }
        let until = Instant::now() + PAUSE.mul_f64(1.0 + chance.swing() / 2.0);
        while Instant::now() < until {
            if handle.is_closed() {
                return;
            }
            thread::sleep(LOOK);
        }
    }
}
