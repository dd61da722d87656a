//! The queue of a trace: lines, as many as its limits let through.

use super::Gathered;

/// Events of a trace in a second.
const EVENTS_PER_SECOND_MAX: u32 = 1000;

/// Bytes of lines that wait to be taken.
const QUEUE_BYTES_MAX: usize = 1 << 20;

/// Lines that wait to be taken.
#[derive(Debug, Default)]
pub(super) struct Queue {
    gathered: Gathered,
    /// Second of the newest event, on the process's clock.
    second: u64,
    /// Events in it.
    events: u32,
    /// Whoever takes is called already.
    is_called: bool,
}

impl Queue {
    /// Adds the line that `encode` writes, if it may. True: whoever takes is to be called.
    pub fn push(&mut self, clock_ms: u64, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        let second = clock_ms / 1000;
        if second != self.second {
            (self.second, self.events) = (second, 0);
        }
        if self.gathered.ended.is_some() {
            return false;
        }
        let has_room = self.gathered.lines.len() < QUEUE_BYTES_MAX;
        if has_room && self.events < EVENTS_PER_SECOND_MAX {
            self.events += 1;
            encode(&mut self.gathered.lines);
        } else {
            self.gathered.dropped += 1;
        }
        !std::mem::replace(&mut self.is_called, true)
    }

    /// Nothing more comes. The first reason stands.
    pub fn end(&mut self, reason: &'static str) {
        self.gathered.ended.get_or_insert(reason);
    }

    /// Takes whole lines: so many bytes, or one line. What was dropped, and the end, come with the last of them.
    pub fn take(&mut self, bytes_max: usize) -> Gathered {
        let lines = &mut self.gathered.lines;
        if lines.len() > bytes_max {
            let is_end = |byte: &u8| *byte == b'\n';
            let fits = lines[..bytes_max].iter().rposition(is_end);
            let first = || lines.iter().position(is_end);
            let len = fits.or_else(first).map_or(lines.len(), |at| at + 1);
            if len < lines.len() {
                let rest = lines.split_off(len);
                return Gathered {
                    lines: std::mem::replace(lines, rest),
                    has_more: true,
                    ..Gathered::default()
                };
            }
        }
        self.is_called = false;
        let ended = self.gathered.ended;
        let rest = Gathered {
            ended,
            ..Gathered::default()
        };
        std::mem::replace(&mut self.gathered, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_events_a_second() {
        let mut queue = Queue::default();
        let line = |out: &mut Vec<u8>| out.push(b'\n');
        assert!(queue.push(5000, line), "the first calls");
        let calls = (0..1200).filter(|_| queue.push(5999, line)).count();
        assert_eq!(calls, 0);
        let gathered = queue.take(usize::MAX);
        assert_eq!((gathered.lines.len(), gathered.dropped), (1000, 201));
        assert!(queue.push(5999, line), "what is dropped is to be told too");
        assert!(!queue.push(6000, line), "it is called already");
        let gathered = queue.take(usize::MAX);
        assert_eq!((gathered.lines.len(), gathered.dropped), (1, 1));
    }

    #[test]
    fn bytes_that_wait_are_bounded() {
        let mut queue = Queue::default();
        let line = |out: &mut Vec<u8>| out.extend_from_slice(&[b'x'; 4096]);
        for second in 0..400 {
            queue.push(second * 1000, line);
        }
        let gathered = queue.take(usize::MAX);
        assert_eq!((gathered.lines.len(), gathered.dropped), (1 << 20, 144));
    }

    #[test]
    fn lines_are_taken_in_pieces() {
        let mut queue = Queue::default();
        for line in ["first\n", "second\n", "third\n"] {
            queue.push(0, |out| out.extend_from_slice(line.as_bytes()));
        }
        queue.end("closed");
        assert!(!queue.push(0, |out| out.push(b'x')), "it has ended");
        let mut pieces = Vec::new();
        for bytes_max in [14, 3] {
            let taken = queue.take(bytes_max);
            pieces.push((taken.lines, taken.has_more, taken.ended));
        }
        let expected = [
            (b"first\nsecond\n".to_vec(), true, None),
            (b"third\n".to_vec(), false, Some("closed")),
        ];
        assert_eq!(pieces, expected);
    }
}
