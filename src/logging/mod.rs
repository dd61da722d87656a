//! Lines of the log: their fields, their number, and what of a request may stand in them.

mod allowance;
mod line;
mod request;
mod target;

pub use allowance::Allowance;
pub use line::{Line, more, shown};
pub use request::{Noted, REQUESTS_MAX, RefusedWords, RequestWords, tells_requests};
pub use target::without_secrets;
