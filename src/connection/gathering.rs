//! A request for topics: its answer is gathered from the hub step by step.

use super::exchange::RequestState;
use super::{Answer, Connection, Hold, Inflation, InputContext, OnEvent, Phase, Settings};
use crate::http::refusal::Refusal;
use crate::topic::Topic;

/// The gathered part of an answer.
#[derive(Debug)]
pub struct Gathering {
    /// The beginning of its body.
    pub body: Vec<u8>,
    /// Rest of a page. None: one topic was asked for.
    pub page: Option<Page>,
}

/// Rest of a page of topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The shard that the hub is asked about at present.
    pub shard: u32,
    /// Topics that the page has room for.
    pub topics_left: u32,
    /// Further questions to the hub that are allowed.
    pub steps_left: u32,
}

impl Connection {
    /// Keeps what there is of the answer until the hub has spoken. Until then nothing further is read.
    pub(super) fn begin_gathering(
        &mut self,
        settings: &Settings,
        now_ms: u64,
        gathering: Gathering,
    ) {
        let Phase::Http(exchange) = &mut self.phase else {
            return;
        };
        exchange.state = RequestState::Gathering(Box::new(gathering));
        self.phase_deadline_ms = now_ms + settings.limits.handshake_timeout_ms;
        self.hold(Hold::Answer);
    }

    /// The gathered part of the answer, if it waits for more.
    pub fn gathering(&mut self) -> Option<&mut Gathering> {
        let Phase::Http(exchange) = &mut self.phase else {
            return None;
        };
        match &mut exchange.state {
            RequestState::Gathering(gathering) => Some(gathering),
            _ => None,
        }
    }

    /// Answers the request, by [`Answer::Respond`] or [`Answer::Refuse`]. Does nothing if it does not wait any more.
    pub fn end_gathering(
        &mut self,
        settings: &Settings,
        now_ms: u64,
        answer: Answer,
        out: &mut Vec<u8>,
        on_event: &mut OnEvent<'_>,
    ) {
        let Phase::Http(exchange) = &self.phase else {
            return;
        };
        if !matches!(exchange.state, RequestState::Gathering(_)) {
            return;
        }
        self.end_waiting(settings, now_ms, answer, out, on_event);
    }

    /// Waits for a page of a history.
    pub(super) fn begin_reading(&mut self, settings: &Settings, now_ms: u64, topic: Topic) {
        let Phase::Http(exchange) = &mut self.phase else {
            return;
        };
        exchange.state = RequestState::Reading(topic);
        self.phase_deadline_ms = now_ms + settings.limits.handshake_timeout_ms;
        self.hold(Hold::Answer);
    }

    /// Topic whose history the request waits for.
    pub fn reading(&self) -> Option<&Topic> {
        match &self.phase {
            Phase::Http(exchange) => match &exchange.state {
                RequestState::Reading(topic) => Some(topic),
                _ => None,
            },
            _ => None,
        }
    }

    /// Answers the request for a page of a history. Does nothing if it does not wait any more.
    pub fn end_reading(
        &mut self,
        settings: &Settings,
        now_ms: u64,
        answer: Answer,
        out: &mut Vec<u8>,
        on_event: &mut OnEvent<'_>,
    ) {
        if self.reading().is_some() {
            self.end_waiting(settings, now_ms, answer, out, on_event);
        }
    }

    /// Whether its request is one of the control API. Errors of those are JSON.
    pub fn is_call(&self) -> bool {
        matches!(&self.phase, Phase::Http(exchange) if exchange.is_call)
    }

    /// Waits for the outcome of an operation, so long at most.
    pub(super) fn begin_call(&mut self, now_ms: u64, wait_ms: u64) {
        let Phase::Http(exchange) = &mut self.phase else {
            return;
        };
        exchange.state = RequestState::Calling;
        self.phase_deadline_ms = now_ms + wait_ms;
        self.hold(Hold::Answer);
    }

    /// Answers the request for an operation, by [`Answer::Respond`]. Does nothing if it does not wait any more: one that
    /// waited for too long has been closed.
    pub fn end_call(
        &mut self,
        settings: &Settings,
        now_ms: u64,
        answer: Answer,
        out: &mut Vec<u8>,
        on_event: &mut OnEvent<'_>,
    ) {
        if let Phase::Http(exchange) = &self.phase
            && matches!(exchange.state, RequestState::Calling)
        {
            self.end_waiting(settings, now_ms, answer, out, on_event);
        }
    }

    /// Refuses the one publication that the request waits for.
    ///
    /// # Errors
    /// Gives the refusal back if it waits for something else, or not any more.
    pub fn refuse_publish(
        &mut self,
        settings: &Settings,
        now_ms: u64,
        refusal: Refusal,
        out: &mut Vec<u8>,
        on_event: &mut OnEvent<'_>,
    ) -> Result<(), Refusal> {
        match &self.phase {
            Phase::Http(exchange) if exchange.awaits_one() => {}
            _ => return Err(refusal),
        }
        self.end_waiting(settings, now_ms, Answer::Refuse(refusal), out, on_event);
        Ok(())
    }

    fn end_waiting(
        &mut self,
        settings: &Settings,
        now_ms: u64,
        answer: Answer,
        out: &mut Vec<u8>,
        on_event: &mut OnEvent<'_>,
    ) {
        if let Phase::Http(exchange) = &mut self.phase {
            exchange.state = RequestState::Head;
        }
        self.lift(Hold::Answer);
        let mut context = InputContext {
            settings,
            now_ms,
            inflation: &mut Inflation::default(),
            out,
            on_event,
            kept: None,
        };
        self.answer(&mut context, answer);
    }
}
