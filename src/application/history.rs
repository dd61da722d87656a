//! Histories to read: `GET /history/{topic}`, and the command of connections of many topics.

use std::sync::Arc;

use super::commands::CommandTurn;
use super::publishes::hub_is_full;
use super::{Application, ConnectionContext};
use crate::auth::access::Action;
use crate::dialect::{self, CommandError, ErrorCode, History};
use crate::handler::ConnectionId;
use crate::hub::{Command, HistoryPage, Read, Start};
use crate::topic::Topic;

/// Publications of a page, where nobody says how many.
pub const PUBLICATIONS_DEFAULT: u32 = 1000;

/// Words where not even one publication fits the connection's outbox.
pub const NO_ROOM: &str = "the page has no room behind what waits for this connection; try again";

impl Application {
    /// Asks for a page, for a command.
    pub(super) fn ask_history(
        &mut self,
        turn: &mut CommandTurn<'_>,
        id: Option<u32>,
        topic: Topic,
        (start, limit): (Start, Option<u32>),
    ) -> Result<(), CommandError> {
        self.authorize_command(turn, id, Action::History(topic.as_str()))?;
        let limit = limit.unwrap_or(PUBLICATIONS_DEFAULT);
        let start = start_of_page(start, limit);
        let asked = Application::page_work(&self.shared.settings, &topic, start, limit);
        let questions_max = self.shared.settings.limits.commands_per_message_max;
        let many = self.multi_subscriptions.get_mut(turn.subscribed);
        let request = many.and_then(|many| {
            let request = many.ask_question(topic.clone(), id, questions_max)?;
            many.begin_question(request, asked);
            Some(request)
        });
        let unavailable = || CommandError::of_refusal(id, hub_is_full());
        let request = request.ok_or_else(unavailable)?;
        self.ask_for_page(turn.id, request, topic, (start, limit))
            .map_err(|_| {
                // Nobody will answer it.
                if let Some(many) = self.multi_subscriptions.get_mut(turn.subscribed) {
                    many.take_question(request);
                    many.end_question(request);
                }
                unavailable()
            })
    }

    /// Asks the hub for a page.
    pub fn ask_for_page(
        &self,
        id: ConnectionId,
        request: u32,
        topic: Topic,
        (start, publications_max): (Start, u32),
    ) -> Result<(), Command> {
        self.submit(Command::Read(Box::new(Read {
            topic,
            reactor: self.reactor,
            connection: id.to_bits(),
            request,
            start,
            publications_max,
            now_us: self.now_us,
        })))
    }

    /// Carries out the hub's answer to a command that reads a history.
    pub fn handle_page(
        &mut self,
        context: &mut ConnectionContext<'_>,
        request: u32,
        page: &HistoryPage,
    ) {
        self.end_question(context, request);
        let many = self.multi_subscriptions.get_mut(*context.subscribed);
        let question = many.and_then(|many| many.take_question(request));
        let (Some((name, topic)), true) = (question, context.connection.takes_deliveries()) else {
            return;
        };
        let settings = Arc::clone(&self.shared.settings);
        let encoding = context.connection.encoding();
        let dialect = settings.dialects.get(encoding);
        let held_bytes = context.connection.outbox.bytes();
        let room_bytes = settings.limits.outbox_bytes_max.saturating_sub(held_bytes);
        let message = encode_fitting(History::new(&topic, page), room_bytes, |out, history| {
            dialect.encode_reply(out, name, &dialect::Reply::History(*history));
        });
        let message = message.unwrap_or_else(|| {
            let error = CommandError::new(name, ErrorCode::Unavailable, NO_ROOM);
            let mut message = Vec::new();
            dialect.encode_reply(&mut message, name, &dialect::Reply::Refused(&error));
            message
        });
        if !message.is_empty() {
            settings
                .dialects
                .frame_message(encoding, &message, context.out);
        }
    }
}

/// Start of a page: the newest, for who says nothing.
pub fn start_of_page(start: Start, limit: u32) -> Start {
    match start {
        Start::Now => Start::Last(limit),
        start => start,
    }
}

/// Encodes as much of a page as there is room for: all, or the first half, or of that the half. None if one publication alone
/// does not fit.
pub fn encode_fitting(
    mut history: History<'_>,
    room_bytes: usize,
    encode: impl Fn(&mut Vec<u8>, &History<'_>),
) -> Option<Vec<u8>> {
    loop {
        let mut out = Vec::with_capacity(256);
        encode(&mut out, &history);
        if out.len() <= room_bytes {
            return Some(out);
        }
        history = history.half()?;
    }
}
