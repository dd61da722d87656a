//! Input that waits while reading is held: the rest of a message, and the bytes behind it.
//!
//! ```text
//!  message: [ carried out | place: the next command ... ]   bytes: [ dealt with | start: ... ]
//! ```
//!
//! It is dealt with before anything else that comes. Neither is copied again where only a part of it is dealt with.

use super::{Answer, Connection, Event, Inflation, InputContext, Message, OnEvent};
use super::{Phase, Settings};

/// A whole message whose commands are carried out up to a place.
#[derive(Debug)]
pub(super) struct KeptMessage {
    payload: Payload,
    place: usize,
}

#[derive(Debug)]
enum Payload {
    Text(Box<str>),
    Binary(Box<[u8]>),
}

impl KeptMessage {
    /// Copy of a message. It is to go on at the place.
    #[cold]
    pub fn new(message: Message<'_>, place: usize) -> KeptMessage {
        let payload = match message {
            Message::Text(text) => Payload::Text(text.into()),
            Message::Binary(bytes) => Payload::Binary(bytes.into()),
        };
        KeptMessage { payload, place }
    }

    fn as_message(&self) -> Message<'_> {
        match &self.payload {
            Payload::Text(text) => Message::Text(text),
            Payload::Binary(bytes) => Message::Binary(bytes),
        }
    }
}

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Unread {
    message: Option<KeptMessage>,
    bytes: Box<[u8]>,
    /// So many of the bytes are dealt with.
    start: usize,
}

impl Unread {
    /// Heap bytes.
    pub fn bytes(&self) -> usize {
        let message = self.message.as_ref();
        message.map_or(0, |it| it.as_message().payload().len()) + self.bytes.len()
    }
}

impl Connection {
    /// Keeps the rest of a message, and the bytes behind it.
    #[cold]
    pub(super) fn keep_unread(&mut self, message: Option<KeptMessage>, bytes: &[u8]) {
        debug_assert!(
            self.unread.is_none(),
            "what was kept is dealt with before new bytes are read"
        );
        self.unread = Some(Box::new(Unread {
            message,
            bytes: bytes.into(),
            start: 0,
        }));
    }

    /// Whether something waits that came while reading was held.
    pub fn has_unread(&self) -> bool {
        self.unread.is_some() || self.has_asked()
    }

    /// Deals with what came while reading was held, as [`handle_bytes`](Connection::handle_bytes) does with what was
    /// read. It comes before later bytes.
    pub fn handle_unread(
        &mut self,
        settings: &Settings,
        now_ms: u64,
        inflation: &mut Inflation,
        out: &mut Vec<u8>,
        on_event: &mut OnEvent<'_>,
    ) {
        let has_asked = self.has_asked();
        let mut unread = match self.unread.take() {
            Some(unread) => unread,
            None if has_asked => Box::default(),
            None => return,
        };
        let mut context = InputContext {
            settings,
            now_ms,
            inflation,
            out,
            on_event,
            kept: None,
        };
        self.begin_turn(&mut context);
        if has_asked {
            let is_last = unread.start == unread.bytes.len();
            self.handle_asked(&mut context, is_last);
        }
        if let Some(message) = unread.message.take() {
            self.handle_rest(&mut context, message);
        }
        let mut rest = &mut unread.bytes[unread.start..];
        self.handle_input(&mut context, &mut rest);
        let bytes_left = rest.len();
        unread.message = context.kept;
        unread.start = unread.bytes.len() - bytes_left;
        if bytes_left == 0 {
            (unread.bytes, unread.start) = (Box::default(), 0);
        }
        if bytes_left > 0 || unread.message.is_some() {
            self.unread = Some(unread);
        }
    }

    /// Goes on with a message at its place.
    fn handle_rest(&mut self, context: &mut InputContext<'_, '_>, message: KeptMessage) {
        // The messages of a connection that is ending are nobody's.
        if !matches!(self.phase, Phase::Open { .. }) {
            return;
        }
        let event = Event::Rest(self.endpoint, message.as_message(), message.place);
        match (context.on_event)(event, context.out) {
            Answer::Keep(place, hold) => {
                context.kept = Some(KeptMessage { place, ..message });
                self.hold(hold);
            }
            answer => {
                let whole = message.as_message();
                let answer = keep_rest(&mut context.kept, whole, answer);
                self.act(context.settings, context.now_ms, answer, context.out);
            }
        }
        self.hold_for_output(context.settings, context.out);
    }
}

/// Keeps the rest of a message if that is the answer to it. Gives what else is to be done.
pub(super) fn keep_rest(
    kept: &mut Option<KeptMessage>,
    message: Message<'_>,
    answer: Answer,
) -> Answer {
    match answer {
        Answer::Keep(place, hold) => {
            *kept = Some(KeptMessage::new(message, place));
            Answer::Hold(hold)
        }
        Answer::SignedIn(answer) => Answer::SignedIn(Box::new(keep_rest(kept, message, *answer))),
        answer => answer,
    }
}
