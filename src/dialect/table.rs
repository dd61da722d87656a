//! Table of dialects, with the routes and subprotocols to each.

use std::fmt;
use std::sync::Arc;

use super::raw::Raw;
use super::sse::Sse;
use super::umbel_v1::{UmbelV1, binary};
use super::{Dialect, Encoding, Form, Framing, umbel_v1};
use crate::hub::Publication;
use crate::protocol::deflate::Agreement;
use crate::protocol::{CloseCode, SERVER_HEADER_BYTES_MAX, encode_frame, encode_server_header};
use crate::topic::Pattern;

/// Path of the project's own dialects of commands, which the console speaks.
pub const COMMANDS_PATH: &str = "/ws";

/// One dialect, and what leads to it.
#[derive(Clone)]
pub struct Row {
    /// Its dialect.
    pub dialect: Arc<dyn Dialect>,
    /// The way in.
    pub entrance: Entrance,
}

/// Entrance of a dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// An upgrade at this path, which ends in a slash, and a topic. What is sent is published there.
    Topic(&'static str),
    /// A plain request at this path, which ends in a slash, and a topic.
    Stream(&'static str),
    /// An upgrade at this path, or anywhere below it if it ends in a slash: many topics, by commands.
    Commands {
        /// The path.
        path: &'static str,
        /// What the peer has to offer, where several dialects share the path.
        subprotocol: Option<&'static str>,
    },
}

/// All dialects that a server speaks. Clones are cheap, and the same table.
#[derive(Clone)]
pub struct Dialects {
    rows: Arc<[Row]>,
    /// A bit for each row whose dialect goes out on streams.
    streams: u64,
}

impl Default for Dialects {
    /// The dialects of the project, each at its number.
    fn default() -> Dialects {
        let commands = |subprotocol| Entrance::Commands {
            path: COMMANDS_PATH,
            subprotocol: Some(subprotocol),
        };
        Dialects::of(vec![
            // The first row is the one whose messages are the bare payloads: see `Encoding::PAYLOAD`.
            Row::new(Raw, Entrance::Topic("/ws/")),
            Row::new(Sse, Entrance::Stream("/sse/")),
            Row::new(
                UmbelV1 { is_binary: false },
                commands(umbel_v1::SUBPROTOCOL),
            ),
            Row::new(UmbelV1 { is_binary: true }, commands(binary::SUBPROTOCOL)),
        ])
    }
}

impl Entrance {
    /// Its path: of a topic and a stream what stands before the topic.
    pub fn path(&self) -> &'static str {
        match *self {
            Entrance::Topic(path) | Entrance::Stream(path) | Entrance::Commands { path, .. } => {
                path
            }
        }
    }

    /// Whether a path leads here. Of a topic and a stream it is what stands before the topic.
    pub fn leads_from(&self, path: &str) -> bool {
        match *self {
            Entrance::Topic(prefix) | Entrance::Stream(prefix) => path.starts_with(prefix),
            Entrance::Commands { path: own, .. } => {
                own == path || own.ends_with('/') && path.starts_with(own)
            }
        }
    }
}

impl Row {
    /// A row of the table.
    pub fn new(dialect: impl Dialect + 'static, entrance: Entrance) -> Row {
        Row {
            dialect: Arc::new(dialect),
            entrance,
        }
    }
}

impl Dialects {
    fn of(rows: Vec<Row>) -> Dialects {
        assert!(rows.len() <= Encoding::COUNT_MAX, "a form names no more");
        let is_stream = |row: &Row| row.dialect.framing() == Framing::Stream;
        let streams = rows.iter().enumerate();
        let streams = streams.fold(0, |bits, (at, row)| bits | u64::from(is_stream(row)) << at);
        Dialects {
            rows: rows.into(),
            streams,
        }
    }

    /// This table with one more row.
    ///
    /// # Panics
    /// Where it has as many as [`Encoding::COUNT_MAX`] already.
    #[must_use]
    pub fn with(&self, row: Row) -> Dialects {
        Dialects::of(self.rows.iter().cloned().chain([row]).collect())
    }

    /// The same rows in memory of their own, for a thread that counts its references without the others.
    pub(crate) fn detached(&self) -> Dialects {
        Dialects::of(self.rows.to_vec())
    }

    /// Number of dialects.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none, which is never so.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows, each with its number.
    pub fn rows(&self) -> impl Iterator<Item = (Encoding, &Row)> {
        let numbered = self.rows.iter().enumerate();
        numbered.map(|(number, row)| (Encoding(number as u8), row))
    }

    /// The names in metrics, in the order of their numbers.
    pub fn labels(&self) -> Vec<&'static str> {
        self.rows.iter().map(|row| row.dialect.label()).collect()
    }

    /// Dialect of a number that this table gave.
    pub fn get(&self, encoding: Encoding) -> &dyn Dialect {
        &*self.rows[usize::from(encoding.0)].dialect
    }

    /// Dialect of commands at a path, by the peer's subprotocols. They are in its order of preference; the chosen one
    /// comes with the dialect.
    ///
    /// # Errors
    /// What the peer would have had to offer.
    pub fn choose<'o>(
        &self,
        path: &str,
        offers: impl Iterator<Item = &'o str>,
    ) -> Result<(Encoding, Option<&'static str>), String> {
        let here = || {
            self.rows()
                .filter_map(|(encoding, row)| match row.entrance {
                    Entrance::Commands { subprotocol, .. } if row.entrance.leads_from(path) => {
                        Some((encoding, subprotocol))
                    }
                    _ => None,
                })
        };
        let mut offered = offers.filter_map(|offer| here().find(|(_, name)| *name == Some(offer)));
        let chosen = offered.next();
        if let Some(chosen) = chosen.or_else(|| here().find(|(_, name)| name.is_none())) {
            return Ok(chosen);
        }
        let names: Vec<_> = here().filter_map(|(_, name)| name).collect();
        let none = if names.len() == 2 { "neither" } else { "none" };
        let mut reason = format!(
            "{path} speaks the subprotocols {}, and the request offers {none} in Sec-WebSocket-Protocol",
            names.join(" and ")
        );
        let topic = self.rows.iter().find_map(|row| match row.entrance {
            Entrance::Topic(prefix) => Some(prefix),
            _ => None,
        });
        if let Some(prefix) = topic {
            reason += &format!(
                "; for one topic without a subprotocol: GET {prefix}{{topic}}, as in {prefix}news"
            );
        }
        Err(reason)
    }

    /// The first offered subprotocol with a code for a refused handshake. It may be spoken elsewhere. Without such a one
    /// it is the code of what is spoken at the path without a subprotocol.
    pub fn refusal_code<'o>(
        &self,
        path: &str,
        mut offers: impl Iterator<Item = &'o str>,
        status: u16,
    ) -> Option<(Option<&'static str>, CloseCode)> {
        let offered = offers.find_map(|offer| {
            let (name, _, row) = self.offered(offer)?;
            Some((Some(name), row.dialect.refusal_code(status)?))
        });
        offered.or_else(|| {
            let here = |row: &&Row| {
                let is_bare = matches!(
                    row.entrance,
                    Entrance::Commands {
                        subprotocol: None,
                        ..
                    }
                );
                is_bare && row.entrance.leads_from(path)
            };
            let row = self.rows.iter().find(here)?;
            Some((None, row.dialect.refusal_code(status)?))
        })
    }

    /// The first dialect among the offered subprotocols, and its path. As in `umbel.v1 is at /ws`; None: none is offered.
    pub fn where_offered<'o>(&self, mut offers: impl Iterator<Item = &'o str>) -> Option<String> {
        offers.find_map(|offer| {
            let (name, path, _) = self.offered(offer)?;
            Some(format!("{name} is at {path}"))
        })
    }

    fn offered(&self, offer: &str) -> Option<(&'static str, &'static str, &Row)> {
        self.rows.iter().find_map(|row| match row.entrance {
            Entrance::Commands {
                path,
                subprotocol: Some(name),
            } if name == offer => Some((name, path, row)),
            _ => None,
        })
    }

    /// Whether it goes out on streams, and not in messages.
    pub fn is_stream(&self, encoding: Encoding) -> bool {
        self.streams >> encoding.0 & 1 != 0
    }

    /// The best form for a connection that agreed to this.
    pub fn best_form(&self, encoding: Encoding, agreement: Option<Agreement>) -> Form {
        let plain = Form::new(encoding, super::Class::Plain);
        agreement.map_or(plain, |agreement| {
            Form::new(encoding, self.get(encoding).class(agreement))
        })
    }

    /// The bytes of a publication without compression, made by whoever asks first.
    pub fn encode<'p>(&self, encoding: Encoding, publication: &'p Publication) -> &'p Arc<[u8]> {
        let form = Form::new(encoding, super::Class::Plain);
        publication.encoded(form.number(), || {
            self.encode_anew(encoding, publication, None).into()
        })
    }

    /// Encodes a publication anew, for a subscriber by a pattern.
    pub fn encode_anew(
        &self,
        encoding: Encoding,
        publication: &Publication,
        pattern: Option<&Pattern>,
    ) -> Vec<u8> {
        let dialect = self.get(encoding);
        let bytes = dialect.publication_bytes(publication, pattern) + SERVER_HEADER_BYTES_MAX;
        let mut out = Vec::with_capacity(bytes);
        if self.is_stream(encoding) {
            dialect.encode_publication(&mut out, publication, pattern);
            return out;
        }
        // The header is put before the payload once its length is known, in the room that was left for the longest.
        out.resize(SERVER_HEADER_BYTES_MAX, 0);
        dialect.encode_publication(&mut out, publication, pattern);
        let payload_len = out.len() - SERVER_HEADER_BYTES_MAX;
        let opcode = dialect.publication_opcode(publication);
        let (header, header_len) = encode_server_header(opcode, true, payload_len as u64);
        let start = SERVER_HEADER_BYTES_MAX - header_len;
        out[start..SERVER_HEADER_BYTES_MAX].copy_from_slice(&header[..header_len]);
        out.drain(..start);
        out
    }

    /// Appends a message of replies or pushes, as it goes out. An empty one is none.
    pub fn frame_message(&self, encoding: Encoding, message: &[u8], out: &mut Vec<u8>) {
        if self.is_stream(encoding) {
            out.extend_from_slice(message);
        } else if !message.is_empty() {
            encode_frame(out, self.get(encoding).reply_opcode(), message, None);
        }
    }
}

impl fmt::Debug for Dialects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.labels()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Class;
    use crate::hub::Kind;
    use crate::protocol::deflate::{Policy, choose};

    #[test]
    fn the_first_row_is_the_frame_that_publications_are_born_as() {
        let dialects = Dialects::default();
        for kind in [Kind::Text, Kind::Binary] {
            let publication = Publication::new(kind, b"a message", 0);
            let encoded = dialects.encode(Encoding::PAYLOAD, &publication);
            assert!(Arc::ptr_eq(encoded, publication.frame()));
            let anew = dialects.encode_anew(Encoding::PAYLOAD, &publication, None);
            assert_eq!(anew, publication.frame()[..]);
        }
    }

    #[test]
    fn the_best_form_follows_from_dialect_and_agreement() {
        use Class::{Cohort, Large, Plain, Small};
        let policy = Policy {
            enabled: true,
            server_takeover: true,
            ..Policy::default()
        };
        let offers = [
            "permessage-deflate",
            "permessage-deflate; server_no_context_takeover",
            "permessage-deflate; server_max_window_bits=9",
        ];
        let dialects = Dialects::default();
        let expected = [
            [Cohort, Large, Small],
            [Plain; 3],
            [Large, Large, Plain],
            [Large, Large, Plain],
        ];
        for ((encoding, _), classes) in dialects.rows().zip(expected) {
            assert_eq!(
                dialects.best_form(encoding, None),
                Form::new(encoding, Plain)
            );
            let best = offers.map(|offer| {
                let agreement = choose([offer.as_bytes()], &policy).expect("it is well-formed");
                dialects.best_form(encoding, agreement).class()
            });
            assert_eq!(best, classes);
        }
    }
}
