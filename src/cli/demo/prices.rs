//! Prices of a few things on a market, each moving by itself.

use std::thread;
use std::time::Duration;

use serde_json::json;
use umbel::{Handle, Message, PublishError, PublishOptions};

use super::chance::Chance;

/// Rule of the topic. A new subscriber gets the newest price of each thing, and so does one that reads slowly.
pub const RULE: &str = "prices/** history=64 keep=latest slow_consumer=latest";

const TOPIC: &str = "prices/market";
const TICK: Duration = Duration::from_millis(80);
const MOVES_PER_TICK: usize = 2;
/// The largest step, as a part of the price.
const STEP: f64 = 0.004;
/// Part of the way back to the first price that a step takes: prices stay believable for days.
const PULL: f64 = 0.002;

/// Names, and prices at first.
const THINGS: [(&str, f64); 8] = [
    ("Angelica", 18.20),
    ("Caraway", 4.75),
    ("Celery", 2.10),
    ("Coriander", 6.40),
    ("Cumin", 9.95),
    ("Dill", 3.30),
    ("Fennel", 5.60),
    ("Lovage", 12.80),
];

/// Publishes until the server ends.
pub fn publish(handle: &Handle) {
    let mut chance = Chance::new();
    let mut prices = THINGS.map(|(_, first)| first);
    for ((name, first), price) in THINGS.iter().zip(prices) {
        if tell(handle, name, *first, price).is_err() {
            return;
        }
    }
    while !handle.is_closed() {
        for _ in 0..MOVES_PER_TICK {
            let which = chance.below(THINGS.len());
            let (name, first) = THINGS[which];
            let price = &mut prices[which];
            *price += *price * STEP * chance.swing() + (first - *price) * PULL;
            // Where more is published than delivered, the next price says the same.
            if tell(handle, name, first, *price) == Err(PublishError::Closed) {
                return;
            }
        }
        thread::sleep(TICK);
    }
}

fn tell(handle: &Handle, name: &str, first: f64, price: f64) -> Result<(), PublishError> {
    let text = json!({"name": name, "first": first, "price": price}).to_string();
    let options = PublishOptions::new().json().key(name);
    handle.publish_with(TOPIC, Message::Text(&text), options)
}
