//! Ends of connections of many topics, worked off in bounded steps.
//!
//! A connection that has ended may be a member of thousands of topics and patterns. Members are bare indexes of slots, and
//! nothing on the way out checks a generation: so a slot is freed only when its last membership is gone. Until then it
//! counts as a connection, takes no deliveries, and is found by no name.

use super::connections::Connections;
use crate::fanout::subscribed::Subscribed;
use crate::net::byte_stream::ByteStream;

impl<T: ByteStream> Connections<T> {
    /// Whether slots of connections that have ended wait for their last memberships to go.
    pub fn has_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Frees the slot of a connection that has ended, or begins to end its memberships.
    pub(crate) fn begin_leaving(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return;
        };
        let id = slot.id(self.application.reactor, index);
        self.application.forget_term(id);
        let many = self.application.multi_subscriptions.remove(slot.subscribed);
        let Some(many) = many else {
            return self.free(id);
        };
        // Neither it nor its subscriptions are found any more by whoever knows their names.
        slot.subscribed = Subscribed::NONE;
        slot.rename(self.next_generation);
        self.next_generation = self.next_generation.wrapping_add(1);
        self.leaving.ended.push_back((id, many));
    }

    /// Ends memberships of connections that have ended, and frees the slots of those that have none left. It takes so many
    /// steps at most.
    pub(crate) fn leave_some(&mut self, steps: usize) {
        for _ in 0..steps {
            let Some((id, many)) = self.leaving.ended.front_mut() else {
                return;
            };
            let (id, form, memberships) = (*id, many.best_form, &mut self.leaving.memberships);
            if memberships.is_empty() {
                // The hub hears of them in an order that is the same in every run, so that the simulation repeats itself.
                *memberships = many.subscriptions.take_sorted();
            }
            if let Some((target, membership)) = memberships.pop() {
                self.application.leave(id, &target, membership, form);
            }
            if self.leaving.memberships.is_empty() {
                self.leaving.memberships = Vec::new();
                if let Some((id, many)) = self.leaving.ended.pop_front() {
                    self.application
                        .discount_patterns(many.pattern_bytes as usize);
                    self.free(id);
                }
            }
        }
    }
}
