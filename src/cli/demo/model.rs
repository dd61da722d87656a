//! Answers to questions, one word after the other.
//!
//! There is no language model: it recites. What is shown is the way of the words: each answer is a topic with a history, so a page
//! that is loaded again in the middle of it has all of it.

use std::time::{Duration, Instant};

use serde::Deserialize;
use umbel::{Delivery, Handle, Message, PublishError, PublishOptions, SubscribeOptions};

/// An answer is kept for a while.
pub const RULE: &str = "model/** history=2000 history_age_max_ms=10m";

const QUESTIONS: &str = "model/ask";
const WORD_EVERY: Duration = Duration::from_millis(45);
/// Answers at once. Beyond that a question is answered by an excuse.
const ANSWERS_MAX: usize = 64;
const ID_LETTERS_MAX: usize = 24;

/// Answers, by a word of the question. The last one fits all.
const TEXTS: [(&str, &str); 4] = [
    (
        "slow",
        "A subscriber that reads slowly never slows the others. What waits for it has a cap, and the topic's rule says what \
         happens at the cap. The connection is closed with a code, or the oldest messages go and a marker names what is \
         missing, or only the newest message of each key stays, which is what a page of prices wants. Whatever it is, the \
         subscriber is told, and nobody else notices.",
    ),
    (
        "lost",
        "Every message has a position. A client keeps the position of the last one that it dealt with, and when the \
         connection breaks, it connects again and says: I have come so far. If the topic's history reaches back to there, \
         exactly the missed messages follow, in order, none twice. If it does not, the client is told so, and loads the \
         state anew. There is no silent gap. Try it: reload this page while I am still speaking.",
    ),
    (
        "scale",
        "One message goes in, and many copies come out. It is framed once, compressed once for all who can share that, and \
         where the kernel allows it, a whole round of copies leaves by a single system call. An idle connection costs about \
         eight kibibytes, nearly all of it the kernel's. A message that is delivered allocates nothing, takes no lock and \
         writes no log line. So a small machine holds very many connections.",
    ),
    (
        "",
        "Umbel is a push server. Programs publish messages to topics, by HTTP or by WebSocket, and everybody who subscribes \
         gets them at once: a page that shows prices, a chat, or these words, each of which is a message of its own. It keeps \
         a history where you want one, says who is there, lets tokens decide who may do what, and drains before it ends. It \
         is one program without other services behind it. Ask me what happens to slow readers, or what is lost when the \
         connection breaks, or how it scales.",
    ),
];

#[derive(Deserialize)]
struct Question {
    id: String,
    text: String,
}

struct Answer {
    topic: String,
    words: std::str::SplitInclusive<'static, char>,
}

impl Answer {
    /// The answer to a question as a page publishes it. None where it cannot be understood.
    fn to(question: &str) -> Option<Answer> {
        let Question { id, text } = serde_json::from_str(question).ok()?;
        let is_plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if id.is_empty() || id.len() > ID_LETTERS_MAX || !is_plain || id == "ask" {
            return None;
        }
        let asked = text.to_lowercase();
        let (_, text) = TEXTS.iter().find(|(word, _)| asked.contains(word))?;
        Some(Answer {
            topic: format!("model/{id}"),
            words: text.split_inclusive(' '),
        })
    }

    /// Says the next word. False: that was the last, or nobody can hear it any more.
    fn go_on(&mut self, handle: &Handle) -> bool {
        let Some(word) = self.words.next() else {
            let end = PublishOptions::new().event("end");
            // Without its end an answer is still whole.
            let _ = handle.publish_with(&self.topic, Message::Text(""), end);
            return false;
        };
        handle.publish(&self.topic, Message::Text(word)) != Err(PublishError::Closed)
    }
}

/// Answers until the server ends.
pub fn publish(handle: &Handle) {
    let Ok(mut questions) = handle.subscribe(QUESTIONS, SubscribeOptions::new()) else {
        return;
    };
    let mut answers: Vec<Answer> = Vec::new();
    let mut next_word_at = Instant::now() + WORD_EVERY;
    loop {
        let wait = next_word_at.saturating_duration_since(Instant::now());
        match questions.next_timeout(wait) {
            Ok(Some(Delivery::Publication(question))) if answers.len() < ANSWERS_MAX => {
                if let Message::Text(text) = question.message() {
                    answers.extend(Answer::to(text));
                }
            }
            Ok(_) => {}
            Err(_) => return,
        }
        if Instant::now() >= next_word_at {
            answers.retain_mut(|answer| answer.go_on(handle));
            next_word_at = Instant::now() + WORD_EVERY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_by_a_word_of_the_question() {
        let answer = Answer::to(r#"{"id":"a1","text":"What about SLOW readers?"}"#).expect("one");
        assert_eq!(answer.topic, "model/a1");
        assert!(answer.words.collect::<String>().contains("never slows"));
        let other = Answer::to(r#"{"id":"a1","text":"hello"}"#).expect("one");
        assert!(other.words.collect::<String>().starts_with("Umbel is"));
    }

    #[test]
    fn no_answer_to_what_is_no_question() {
        for question in [
            "",
            "{}",
            r#"{"id":"","text":"x"}"#,
            r#"{"id":"a/b","text":"x"}"#,
            r#"{"id":"ask","text":"x"}"#,
            r#"{"id":"0123456789012345678901234","text":"x"}"#,
        ] {
            assert!(Answer::to(question).is_none(), "{question}");
        }
    }
}
