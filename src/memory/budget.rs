//! The budget, and the shares of its users.

use crate::config::Limits;

/// Part of the memory that there is, in percent.
const BUDGET_PERCENT: u64 = 75;

/// Parts of the budget that its users have where nothing else is said, in percent.
const HISTORIES_PERCENT: u64 = 25;
const OUTBOXES_PERCENT: u64 = 25;
const INBOUND_PERCENT: u64 = 15;

/// The most that all mailboxes, or all commands that wait, may take of it, in percent.
const QUEUES_PERCENT: u64 = 10;

/// The least that a queue has.
const QUEUE_BYTES_MIN: u64 = 1 << 20;

/// The budget where nothing tells what there is, in bytes: shares of 1 GiB for what is on its way out.
const UNKNOWN: u64 = 4 << 30;

/// Sets what the limits leave open by the budget: said in bytes, or a part of what there is.
pub fn fill(limits: &mut Limits, there_is: Option<u64>, (reactors, shards): (usize, usize)) {
    if limits.memory_budget_bytes == 0 {
        limits.memory_budget_bytes = there_is.map_or(0, |bytes| part(bytes, BUDGET_PERCENT));
    }
    fill_shares(limits);
    if limits.memory_budget_bytes > 0 {
        let queues = part(limits.memory_budget_bytes, QUEUES_PERCENT);
        let each = |count: usize| (queues / count.max(1) as u64).max(QUEUE_BYTES_MIN) as usize;
        limits.mailbox_bytes_max = limits.mailbox_bytes_max.min(each(reactors));
        limits.command_bytes_max = limits.command_bytes_max.min(each(shards));
    }
}

/// Sets the shares that the limits leave open.
pub fn fill_shares(limits: &mut Limits) {
    let budget = match limits.memory_budget_bytes {
        0 => UNKNOWN,
        bytes => bytes,
    };
    for (share, percent) in [
        (&mut limits.history_bytes_total_max, HISTORIES_PERCENT),
        (&mut limits.outbox_bytes_total_max, OUTBOXES_PERCENT),
        (&mut limits.inbound_bytes_total_max, INBOUND_PERCENT),
    ] {
        if *share == 0 {
            *share = part(budget, percent) as usize;
        }
    }
}

fn part(bytes: u64, percent: u64) -> u64 {
    (u128::from(bytes) * u128::from(percent) / 100) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_what_there_is() {
        let mut limits = Limits::default();
        fill(&mut limits, Some(256 << 20), (2, 12));
        assert_eq!(limits.memory_budget_bytes, 192 << 20);
        assert_eq!(limits.history_bytes_total_max, 48 << 20);
        assert_eq!(limits.outbox_bytes_total_max, 48 << 20);
        assert_eq!(limits.inbound_bytes_total_max, part(192 << 20, 15) as usize);
        assert_eq!(limits.mailbox_bytes_max, part(192 << 20, 10) as usize / 2);
        assert_eq!(limits.command_bytes_max, part(192 << 20, 10) as usize / 12);
    }

    #[test]
    fn what_is_said_stands() {
        let mut limits = Limits {
            memory_budget_bytes: 1 << 40,
            history_bytes_total_max: 7,
            ..Limits::default()
        };
        let mailbox = limits.mailbox_bytes_max;
        fill(&mut limits, Some(1 << 30), (1, 1));
        assert_eq!(limits.memory_budget_bytes, 1 << 40);
        assert_eq!(limits.history_bytes_total_max, 7);
        assert_eq!(limits.outbox_bytes_total_max, 1 << 38);
        assert_eq!(limits.mailbox_bytes_max, mailbox);
    }

    #[test]
    fn shares_without_a_budget() {
        let mut limits = Limits::default();
        fill(&mut limits, None, (1, 1));
        assert_eq!(limits.memory_budget_bytes, 0);
        assert_eq!(limits.outbox_bytes_total_max, 1 << 30);
    }
}
