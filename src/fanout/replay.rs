//! Replays: what a new subscriber has missed, as far as it fits.

use crate::dialect::{Dialects, Encoding, Gaps};
use crate::hub::{Joined, Position, Publication};
use crate::topic::Topic;

/// Bytes of a gap marker in a replay besides its topic, at most.
const GAP_BYTES: usize = 192;

/// Writes a replay. Where publications are left out of it whose time to live is over, a gap marker stands, in dialects that
/// have one.
pub fn write_replay(
    out: &mut Vec<u8>,
    dialects: &Dialects,
    encoding: Encoding,
    topic: &Topic,
    joined: &Joined,
    has_gaps: bool,
) {
    let encode_gap = match dialects.get(encoding).gaps() {
        Gaps::Shown(encode_gap) if has_gaps => Some(encode_gap),
        _ => None,
    };
    // Without a position nobody expects anything before the first.
    let first = joined.publications.first();
    let first = first.map(|first| first.position().offset);
    let mut next = joined.after.map(|after| after + 1).or(first);
    let epoch = joined.position.epoch;
    let mut tell_gap = |out: &mut Vec<u8>, end: u64| {
        let start = next.replace(end + 1);
        if let (Some(start), Some(encode_gap)) = (start, encode_gap)
            && start < end
        {
            let at = |offset| Position { epoch, offset };
            out.extend_from_slice(&encode_gap(topic, None, at(start), at(end - 1)));
        }
    };
    for publication in &joined.publications {
        tell_gap(out, publication.position().offset);
        out.extend_from_slice(dialects.encode(encoding, publication));
    }
    if joined.after.is_some() || first.is_some() {
        tell_gap(out, joined.position.offset + 1);
    }
}

/// Bytes of a topic's name, of which escapes in a marker make at most six times as many.
fn name_bytes(publication: &Publication) -> usize {
    publication.topic().map_or(0, |topic| topic.as_str().len())
}

/// Part of a replay that fits so many bytes of a dialect. Who asked for all since a position gets all of it or is told
/// that it is not recovered; who asked for the last ones gets the newest that fit.
pub fn fit(
    mut joined: Joined,
    dialects: &Dialects,
    encoding: Encoding,
    room_bytes: usize,
    has_gaps: bool,
) -> Joined {
    let mut bytes_left = room_bytes;
    let newest_first = joined.publications.iter().rev();
    let mut above = joined.position.offset + 1;
    let fitting = newest_first
        .take_while(|next| {
            let frame_bytes = dialects.encode(encoding, next).len();
            let offset = next.position().offset;
            let has_gap = std::mem::replace(&mut above, offset) > offset + 1;
            let gap_bytes = if has_gaps && has_gap {
                GAP_BYTES + 6 * name_bytes(next)
            } else {
                0
            };
            let left = bytes_left.checked_sub(frame_bytes + gap_bytes);
            bytes_left = left.unwrap_or(0);
            left.is_some()
        })
        .count();
    let missing = joined.publications.len() - fitting;
    if missing > 0 && joined.snapshot.is_some() {
        joined.snapshot = Some(false);
        joined.publications.drain(..missing);
    } else if missing > 0 && joined.recovered.is_some() {
        joined.recovered = Some(false);
        joined.after = None;
        joined.publications.clear();
    } else {
        joined.publications.drain(..missing);
    }
    joined
}
