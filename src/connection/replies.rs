//! Answers to publications of a request, while they come.

/// Publications whose positions are awaited.
#[derive(Debug)]
pub(super) struct Replies {
    /// The answer to each line; of a single publication, one.
    pub lines: Vec<Option<Vec<u8>>>,
    pub missing: usize,
    /// Number of those that were published before.
    pub replayed: usize,
    /// Number of those that are refused.
    pub refused: usize,
    /// Of these, how many may be taken a little later.
    pub unavailable: usize,
    /// Form of the answer.
    pub form: RepliesForm,
}

/// Form of the answer to publications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RepliesForm {
    /// The object of the only one.
    One,
    /// A line for each.
    Lines,
    /// One object with a list.
    Results,
}

impl Replies {
    /// The answers as an object with a list.
    pub fn joined(&self) -> Vec<u8> {
        let mut body = b"{\"results\":[".to_vec();
        for (at, answer) in self.lines.iter().flatten().enumerate() {
            if at > 0 {
                body.push(b',');
            }
            body.extend_from_slice(answer.trim_ascii_end());
        }
        body.extend_from_slice(b"]}\n");
        body
    }
}
