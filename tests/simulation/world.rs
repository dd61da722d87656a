//! One run: a node, its peers, the network between them, and a clock that moves when nobody has anything left to do.
//!
//! 1. peers come and go, and faults happen
//! 2. the network heals and good peers finish what they began; then everything is at rest, and complete
//! 3. the node is shut down, and everything ends
//!
//! In some runs the second part is left out, so that the shutdown comes in the middle of the traffic; in some the node
//! dies in the first part, and another one begins with nothing.

mod faults;
mod identities;
mod reload;

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use umbel::config::Limits;
use umbel::internals::connection::CloseReason;
use umbel::internals::http::refusal::Refusal;

use super::cover::Cover;
use super::many::Many;
use super::network::Link;
use super::node::{self, Node};
use super::peer::{self, Kind, Peer};
use super::plan::{Plan, Wakes};
use super::random::Random;
use super::records::Records;
use super::rogue::ROGUES;
use super::topics::Target;
use super::views::Start;

const TRAFFIC_MS: u64 = 400;
const HEALING_MS: u64 = 1200;
/// How long after the healing those who were cut off still come back.
const RETURN_MS: u64 = 300;
/// How long a probe takes at most.
const PROBE_MS: u64 = 200;
/// The longest time that a reactor does not run. Longer than a pong may take, so that it is not taken for the peer's
/// fault; shorter than a Close may take, for a peer may be kept from sending it by what was not read meanwhile.
const STALL_MS_MAX: u64 = 105;
const PEERS_MAX: usize = 24;
/// The same, with those who come back.
const RETURNS_MAX: usize = 32;
/// Steps without the clock moving, after which it is said that they never end.
const STEPS_MAX: u64 = 100_000;

/// What can be done next.
#[derive(Clone, Copy, Debug, Hash)]
enum Action {
    Tick(usize),
    Work,
    Transfer(usize),
    Act(usize),
}

pub struct World {
    random: Random,
    now_ms: u64,
    step: u64,
    node: Node,
    links: Vec<Rc<RefCell<Link>>>,
    /// The reactor of each link.
    homes: Vec<usize>,
    peers: Vec<Peer>,
    arrivals_ms: Vec<u64>,
    records: Records,
    cover: Cover,
    trace: DefaultHasher,
    topics: usize,
    limits: Limits,
    plan: Plan,
    /// When it gets other rules.
    reloads_ms: Vec<u64>,
    /// When somebody is denied, or let in again.
    denies_ms: Vec<u64>,
    /// When the node dies.
    dies_ms: Option<u64>,
    /// How often it has.
    deaths: u64,
    /// When the workers go on.
    works_from_ms: u64,
    faults: bool,
    is_draining: bool,
    steps_at_rest: u64,
}

/// What a run came to.
pub struct Outcome {
    pub trace: u64,
    pub cover: Cover,
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let peers = 4 + random.below(10);
        let plan = Plan::new(&mut random);
        let (limits, rules) = (plan.limits.clone(), plan.rules.clone());
        let mut cover = Cover::default();
        cover.add(if plan.inline { "inline" } else { "by workers" }, 1);
        World {
            node: plan.node(1, 0),
            plan,
            dies_ms: random
                .chance(25)
                .then(|| random.within(50, TRAFFIC_MS - 50)),
            reloads_ms: reload::times(&mut random),
            denies_ms: Vec::new(),
            deaths: 0,
            works_from_ms: 0,
            now_ms: 0,
            step: 0,
            links: Vec::new(),
            homes: Vec::new(),
            peers: Vec::new(),
            arrivals_ms: (0..peers).map(|_| random.within(0, 200)).collect(),
            records: Records::under(&limits, rules),
            cover,
            trace: DefaultHasher::new(),
            topics: *random.pick(&[1, 2, 3, 5]),
            limits,
            faults: true,
            is_draining: false,
            steps_at_rest: 0,
            random,
        }
    }

    /// The same run, in which some of the reactors' wakes are lost.
    pub fn losing_wakes(mut self, wakes: Wakes) -> World {
        self.plan.wakes = wakes;
        self.node = self.plan.node(1, 0);
        self
    }

    pub fn run(mut self) -> Outcome {
        self.run_until(|world| world.now_ms >= TRAFFIC_MS);
        self.heal();
        if self.random.chance(70) {
            self.peers.iter_mut().for_each(|peer| peer.left = 0);
            self.run_until(|world| world.now_ms >= TRAFFIC_MS + HEALING_MS);
            self.check_rest();
            self.probe();
        } else {
            self.cover.add("shut down in the middle of traffic", 1);
        }
        self.is_draining = true;
        self.part();
        self.node.shut_down();
        let end_ms = self.now_ms + self.limits.drain_timeout_ms;
        self.run_until(|world| {
            world.now_ms >= end_ms || world.node.reactors.iter().all(Option::is_none)
        });
        assert!(
            self.node.reactors.iter().all(Option::is_none),
            "the drain does not end"
        );
        while self.node.has_work() {
            self.node.work();
        }
        self.node.check_end();
        self.records.check_views(&mut self.cover);
        self.records.check_parting(&mut self.cover);
        self.records.check_publishers();
        self.records.check_receipts(&mut self.cover);
        self.finish()
    }

    /// Takes the figures of a node whose life is over.
    fn count_node(&mut self) {
        let metrics = &self.node.shared.metrics;
        for (index, label) in CloseReason::LABELS.iter().enumerate() {
            let count = metrics.sum(|reactor| &reactor.closed[index]);
            self.cover.add(&format!("closed {label}"), count);
        }
        for (index, label) in Refusal::LABELS.iter().enumerate() {
            let count = metrics.sum(|reactor| &reactor.refused[index]);
            self.cover.add(&format!("refused {label}"), count);
        }
        let holds = metrics.sum(|reactor| &reactor.publish_holds);
        self.cover.add("held for the hub", holds);
        let rests = metrics.sum(|reactor| &reactor.work_holds);
        self.cover.add("rest of a message that is kept", rests);
        self.cover
            .add("deliveries", metrics.sum(|it| &it.deliveries));
        let cohort_deliveries = metrics.sum(|reactor| &reactor.cohort_deliveries);
        let deflated_deliveries = metrics.sum(|reactor| &reactor.deflated_deliveries);
        let resets = metrics.sum(|reactor| &reactor.cohort_resets);
        self.cover.add("delivery by a cohort", cohort_deliveries);
        self.cover.add(
            "delivery in a frame compressed by itself",
            deflated_deliveries,
        );
        self.cover.add("cohort forgot its context", resets);
        let replaced = metrics.sum(|reactor| &reactor.replaced);
        let dropped = metrics.sum(|reactor| &reactor.dropped_oldest);
        self.cover.add("replaced by a newer one", replaced);
        self.cover.add("dropped as the oldest", dropped);
    }

    fn finish(mut self) -> Outcome {
        self.count_node();
        self.cover.add("steps", self.step);
        for link in &self.links {
            let link = link.borrow();
            (link.bytes_read, link.bytes_written).hash(&mut self.trace);
        }
        Outcome {
            trace: self.trace.finish(),
            cover: self.cover,
        }
    }

    fn run_until(&mut self, is_over: impl Fn(&World) -> bool) {
        while !is_over(self) {
            self.step += 1;
            let actions = self.actions();
            if actions.is_empty() {
                if !self.node.has_work() && !self.node.is_stalled(self.now_ms) {
                    self.node.check_rest(self.now_ms);
                }
                self.advance();
                continue;
            }
            if self.random.chance(1) {
                self.set_now(self.now_ms + 1);
            }
            self.arrive_early();
            self.steps_at_rest += 1;
            assert!(self.steps_at_rest < STEPS_MAX, "it never comes to rest");
            let action = self.pick(&actions);
            (action, self.now_ms).hash(&mut self.trace);
            self.carry_out(action);
            self.note_reloaded();
            if self.faults && self.random.chance(1) {
                self.strike();
            }
        }
    }

    fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for (index, reactor) in self.node.reactors.iter().enumerate() {
            if reactor
                .as_ref()
                .is_some_and(|reactor| reactor.driver.is_awake(self.now_ms))
            {
                actions.push(Action::Tick(index));
            }
        }
        if self.node.has_work() && self.now_ms >= self.works_from_ms {
            actions.push(Action::Work);
        }
        for (index, link) in self.links.iter().enumerate() {
            let link = link.borrow();
            if link.next_ms().is_some_and(|at_ms| at_ms <= self.now_ms) {
                actions.push(Action::Transfer(index));
            }
            if self.peers[index].is_runnable(&link, self.now_ms) {
                actions.push(Action::Act(index));
            }
        }
        actions
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Work => {
                self.node.work();
                if self.faults && self.random.chance(self.plan.pauses_percent) {
                    self.works_from_ms = self.now_ms + self.random.within(1, 15);
                    self.cover.add("fault: workers pause", 1);
                }
            }
            Action::Tick(index) => {
                let mut around = node::Surroundings {
                    now_ms: self.now_ms,
                    random: &mut self.random,
                    cover: &mut self.cover,
                    records: &mut self.records,
                };
                self.node.tick(index, &mut around);
            }
            Action::Transfer(index) => {
                let mut link = self.links[index].borrow_mut();
                if link.transfer() {
                    self.node.queue_event(self.homes[index], index, &mut link);
                }
            }
            Action::Act(index) => {
                let mut link = self.links[index].borrow_mut();
                let mut around = peer::Surroundings {
                    now_ms: self.now_ms,
                    step: self.step,
                    random: &mut self.random,
                    link: &mut link,
                    records: &mut self.records,
                    cover: &mut self.cover,
                    topics: self.topics,
                    payload_max: self.limits.publication_bytes_max,
                    message_max: self.limits.message_bytes_max,
                    is_draining: self.is_draining,
                };
                self.peers[index].act(&mut around);
            }
        }
    }

    /// Moves the clock to the next moment at which something happens.
    fn advance(&mut self) {
        let reactors = self.node.reactors.iter().flatten();
        let wakes = reactors.map(|reactor| reactor.driver.wakes_ms());
        let links = self.links.iter().filter_map(|link| link.borrow().next_ms());
        let peers = self
            .peers
            .iter()
            .zip(&self.links)
            .filter(|(peer, _)| !peer.is_done)
            .map(|(peer, link)| peer.wakes_ms(&link.borrow()));
        let work = self.node.has_work().then_some(self.works_from_ms);
        let arrivals = self.arrivals_ms.iter().copied().chain(work);
        let next_ms = wakes.chain(links).chain(peers).chain(arrivals).min();
        // Nothing at all may be left to happen, and the phase ends by time all the same.
        let next_ms = next_ms.unwrap_or(u64::MAX).min(self.now_ms + 50);
        self.set_now(next_ms.max(self.now_ms + 1));
        self.steps_at_rest = 0;
        self.arrive();
    }

    fn set_now(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        for link in &self.links {
            link.borrow_mut().set_now(now_ms);
        }
    }

    /// Lets the peers connect whose time has come, and others in place of those that have gone.
    /// While a slot is kept for its memberships a subscriber may come, which must not get it.
    fn arrive_early(&mut self) {
        if let Some(home) = self.node.leaving_reactor()
            && self.faults
            && !self.is_draining
            && self.links.len() < 2 * PEERS_MAX
            && self.random.chance(20)
        {
            let index = self.links.len();
            let (topic, now_ms) = (self.random.below(self.topics), self.now_ms);
            let peer = Peer::new(Kind::Subscriber, index, topic, now_ms, &mut self.random);
            self.connect_at(home, peer);
        }
    }

    /// One of the actions. A reactor that keeps a slot has its turn less often, so that much happens meanwhile.
    fn pick(&mut self, actions: &[Action]) -> Action {
        let action = *self.random.pick(actions);
        let leaving = self.node.leaving_reactor();
        let is_leaving = matches!(action, Action::Tick(index) if leaving == Some(index));
        match is_leaving && self.random.chance(80) {
            true => *self.random.pick(actions),
            false => action,
        }
    }

    fn arrive(&mut self) {
        if self.faults && self.dies_ms.is_some_and(|at_ms| at_ms <= self.now_ms) {
            self.dies_ms = None;
            self.restart();
        }
        if self.faults {
            self.reload();
            self.deny();
        }
        let due = self.arrivals_ms.len();
        self.arrivals_ms.retain(|at_ms| *at_ms > self.now_ms);
        for _ in self.arrivals_ms.len()..due {
            let kind = match self.random.below(12) {
                0..2 => Kind::Subscriber,
                2 => Kind::EventReader,
                3..6 => Kind::Many,
                6..8 => Kind::Publisher,
                8 => Kind::Echo,
                _ => Kind::Rogue(*self.random.pick(ROGUES)),
            };
            let topic = self.random.below(self.topics);
            let index = self.links.len();
            let peer = Peer::new(kind, index, topic, self.now_ms, &mut self.random);
            let peer = self.identify(peer);
            if self.connect(peer) && self.faults && self.peers.len() < PEERS_MAX {
                let again_ms = self.now_ms + self.random.within(50, 400);
                self.arrivals_ms.push(again_ms);
            }
        }
        let is_late = self.now_ms >= TRAFFIC_MS + RETURN_MS;
        if !is_late && !self.is_draining {
            self.return_peers();
        }
    }

    /// Opens a connection for a peer. False: nobody listens.
    fn connect(&mut self, peer: Peer) -> bool {
        let home = self.random.below(self.node.reactors.len());
        self.connect_at(home, peer)
    }

    /// Opens one to this reactor.
    fn connect_at(&mut self, home: usize, peer: Peer) -> bool {
        let index = self.links.len();
        let link = Link::new(&mut self.random);
        link.borrow_mut().set_now(self.now_ms);
        if !self.node.connect(home, index, Rc::clone(&link)) {
            return false;
        }
        self.peers.push(peer);
        self.links.push(link);
        self.homes.push(home);
        true
    }

    /// Those who were cut off come back, and go on from where they were.
    fn return_peers(&mut self) {
        for index in 0..self.peers.len() {
            let peer = &self.peers[index];
            let is_gone = peer.is_done && !peer.is_succeeded;
            if !is_gone || self.peers.len() >= RETURNS_MAX || self.random.chance(50) {
                continue;
            }
            let mut next = Peer::new(
                peer.kind,
                self.links.len(),
                peer.topic,
                self.now_ms,
                &mut self.random,
            );
            next.left = next.left.min(8);
            if !self.faults {
                next.slowness_ms = 0;
            }
            let place = |view: usize| self.records.reached(&self.records.views[view]);
            match (peer.kind, peer.view, &peer.many) {
                (Kind::Subscriber | Kind::EventReader, Some(view), _) => {
                    next.start = place(view).map_or(Start::Now, Start::Since);
                }
                (Kind::Many, _, Some(many)) => {
                    let resume = many.subscriptions().map(|(target, view)| match target {
                        Target::Topic(_) => (target, place(view)),
                        Target::Pattern(_) => (target, None),
                    });
                    next.left += 2;
                    let more = Many::continuing(many.tongue, resume.collect());
                    let more = more.resending(many, &self.records);
                    let holder = many
                        .holder
                        .as_ref()
                        .map(|it| it.successor(&mut self.records, self.now_ms));
                    next.many = Some(Box::new(more.holding(holder)));
                }
                _ => continue,
            }
            if let (Some(badge), Some(rights)) = (self.peers[index].badge, &mut self.records.rights)
            {
                next.badge = Some(rights.successor(badge, self.now_ms));
            }
            self.peers[index].is_succeeded = true;
            self.connect(next);
            self.cover.add("came back", 1);
        }
    }

    /// The node dies, and another one begins where it was, with nothing.
    fn restart(&mut self) {
        self.count_node();
        self.node.die(&self.links);
        self.deaths += 1;
        self.records.end_reload(self.now_ms);
        if let Some(rights) = &mut self.records.rights {
            rights.restart(self.now_ms);
        }
        self.node = self.plan.node(1 + self.deaths, self.now_ms);
        self.cover.add("restart", 1);
    }

    /// At rest it is known who subscribes to what: a receipt and the list of those present have to say the same.
    fn probe(&mut self) {
        let is_clear = |index: usize| {
            let link = self.links[index].borrow();
            !link.reset && !link.swallows
        };
        if !self.node.subscribers().all(is_clear) {
            return;
        }
        let index = self.links.len();
        let mut peer = Peer::new(Kind::Many, index, 0, self.now_ms, &mut self.random);
        (peer.slowness_ms, peer.left) = (0, 0);
        peer.many = Some(Box::new(Many::probing()));
        if !self.connect(peer) {
            return;
        }
        let expected: Vec<_> = (0..self.topics)
            .map(|topic| self.subscribed(topic))
            .collect();
        // Each is present until it has ended, and is matched by nothing any more. Its peer may have forgotten where.
        let closing = self.node.closing().count() as u64;
        let end_ms = self.now_ms + PROBE_MS;
        self.run_until(|world| world.now_ms >= end_ms);
        let Some(many) = &self.peers[index].many else {
            return;
        };
        for (topic, (present, matched)) in &many.probed {
            // Who is closed meanwhile goes by one subscription at a time.
            let (before, after) = (expected[*topic], self.subscribed(*topic));
            if let Some(present) = present {
                let may_be = after.0.min(before.0)..=before.0 + closing;
                let is_whole = !self.records.may_lack_presence(*topic, 0, self.now_ms);
                // Who subscribed while there was none is not present.
                assert!(
                    may_be.contains(present) || !is_whole && present <= may_be.end(),
                    "{present} present on {topic}"
                );
            }
            if let Some(matched) = matched {
                let [before, after] = [before, after].map(|(own, by_pattern)| own + by_pattern);
                let may_be = after.min(before)..=before;
                assert!(may_be.contains(matched), "{matched} matched on {topic}");
            }
            self.cover.add("probe of a topic at rest", 1);
        }
        self.check_rest();
    }

    /// How many subscribe to a topic, by its name and by patterns.
    fn subscribed(&self, topic: usize) -> (u64, u64) {
        let (mut by_topic, mut by_pattern) = (0, 0);
        for index in self.node.subscribers() {
            let peer = &self.peers[index];
            let is_here = peer.topic == topic && (peer.subscribes || peer.view.is_some());
            by_topic += u64::from(is_here);
            for (target, _) in peer.many.iter().flat_map(|many| many.subscriptions()) {
                match target {
                    Target::Topic(of) => by_topic += u64::from(of == topic),
                    Target::Pattern(_) => by_pattern += u64::from(target.matches(topic)),
                }
            }
        }
        (by_topic, by_pattern)
    }

    /// The last that the node is given before it is told to end: whoever lives to see the end sees this too.
    fn part(&mut self) {
        for topic in 0..self.topics {
            let (number, payload) = self.records.say_farewell(topic, self.step);
            if !self.node.publish(topic, &payload) {
                self.records.refuse(number);
            }
        }
    }

    /// Everything is answered and everything has arrived.
    fn check_rest(&mut self) {
        let links = &self.links;
        let is_reached = |index: usize| {
            let link = links[index].borrow();
            !link.reset && !link.swallows && !link.node_closed
        };
        for peer in self.peers.iter().filter(|peer| is_reached(peer.id)) {
            peer.check_rest(self.now_ms, &self.records);
        }
        assert!(!self.node.is_reloading(), "a reload is forgotten");
        let peers = &self.peers;
        let is_open = |index: usize| is_reached(index) && peers[index].is_settled();
        let checked = self.records.check_complete(is_open);
        self.cover.add("deliveries that were owed", checked);
    }
}
