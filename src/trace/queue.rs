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

    /// Takes all.
    pub fn take(&mut self) -> Gathered {
        self.is_called = false;
        let ended = self.gathered.ended;
        Gathered {
            ended,
            ..std::mem::replace(
                &mut self.gathered,
                Gathered {
                    ended,
                    ..Gathered::default()
                },
            )
        }
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
        let gathered = queue.take();
        assert_eq!((gathered.lines.len(), gathered.dropped), (1000, 201));
        assert!(queue.push(5999, line), "what is dropped is to be told too");
        assert!(!queue.push(6000, line), "it is called already");
        let gathered = queue.take();
        assert_eq!((gathered.lines.len(), gathered.dropped), (1, 1));
    }

    #[test]
    fn bytes_that_wait_are_bounded() {
        let mut queue = Queue::default();
        let line = |out: &mut Vec<u8>| out.extend_from_slice(&[b'x'; 4096]);
        for second in 0..400 {
            queue.push(second * 1000, line);
        }
        let gathered = queue.take();
        assert_eq!((gathered.lines.len(), gathered.dropped), (1 << 20, 144));
    }
}
