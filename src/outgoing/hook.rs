//! The hook: questions to the application by HTTP, on threads of their own.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::address::Plain;
use super::breaker::{Admitted, Breaker};
use super::client::{Answered, Client, ClientSettings, RequestError};
use super::ended::{EndedQueue, Told};
use super::signature::{self, Signer};
use super::target::Target;
use super::threads::Threads;
use crate::auth::access::{Denied, TokenFault};
use crate::auth::hook::answer::{ANSWER_BYTES_MAX, AnswerRules, no_answer, read_answer};
use crate::auth::hook::{Ended, Hook, HookResult, Question};
use crate::auth::verdict::{Decision, Pending, Terms};
use crate::config::{Config, ConfigError, HookConfig, HookEvent};
use crate::metrics::hook::HookCounts;
use crate::topic::Pattern;

/// Most answers about subscriptions that are kept.
const CACHED_MAX: usize = 65_536;

/// Time until ends of connections are told again that could not be, in milliseconds.
const TELL_AGAIN_MS: u64 = 1000;

/// The hook of a server.
pub struct HttpHook {
    config: HookConfig,
    asker: Arc<Asker>,
    threads: Threads,
    /// One that tells of ends, so that they keep no thread from a question.
    telling: Threads,
}

/// What the threads share.
struct Asker {
    client: Client,
    signer: Signer,
    rules: AnswerRules,
    node: Arc<str>,
    breaker: Mutex<Breaker>,
    counts: Arc<HookCounts>,
    /// Clock of the breaker and of the cache.
    begun: Instant,
    cache_ms: u64,
    message_bytes_max: usize,
    ended: EndedQueue,
    /// Subscriptions by subject and topic.
    subscriptions: Mutex<HashMap<SubscriptionKey, Subscription>>,
}

/// Subject, and what it asks for.
type SubscriptionKey = (String, Option<String>, Option<String>);

/// A subscription that is asked about, or was.
enum Subscription {
    /// All who wait for the one answer.
    Asked(Vec<Pending>),
    /// It was allowed until then, in milliseconds, on these terms.
    Allowed(u64, Terms),
}

/// A question on its way. If nobody answers it, its end does.
struct Turn {
    asker: Arc<Asker>,
    event: HookEvent,
    question: Question,
    key: Option<SubscriptionKey>,
    pending: Pending,
    admitted: Option<Admitted>,
    /// Bytes of its message, as they are counted.
    bytes: usize,
}

impl HttpHook {
    /// The hook of a configuration, if it has one. No thread runs yet.
    ///
    /// # Errors
    /// A setting cannot stand.
    pub fn of(config: &Config, counts: Arc<HookCounts>) -> Result<Option<HttpHook>, ConfigError> {
        let Some(hook) = &config.hook else {
            return Ok(None);
        };
        let target = Target::parse(&hook.url, Plain::Private);
        let target = target.map_err(|why| ConfigError::new("hook_url", &hook.url, why))?;
        let client = Client::new(ClientSettings {
            target,
            timeout: Duration::from_millis(hook.timeout_ms),
            body_bytes_max: ANSWER_BYTES_MAX,
            redirects_max: 0,
            ca_file: hook.ca_file.clone(),
            proxy: config.outgoing_proxy.clone(),
            idle_max: config.limits.hook_threads,
        });
        let client = client.map_err(|(setting, why)| match setting {
            "ca_file" => {
                let file = hook
                    .ca_file
                    .as_deref()
                    .unwrap_or(Path::new("(the system's)"));
                ConfigError::new("hook_ca_file", file.display(), why)
            }
            setting => {
                ConfigError::new(setting, config.outgoing_proxy.as_deref().unwrap_or(""), why)
            }
        })?;
        let secrets = hook.secret.iter().chain(&hook.secret_previous);
        let asker = Asker {
            client,
            signer: Signer::new(secrets),
            rules: AnswerRules {
                subject_prefix: hook.subject_prefix.as_deref().unwrap_or("").into(),
                may_manage: hook.may_manage,
            },
            node: node_name(),
            breaker: Mutex::default(),
            counts,
            begun: Instant::now(),
            cache_ms: hook.cache_ms,
            message_bytes_max: config.limits.hook_queue_bytes_max,
            ended: EndedQueue::new(config.limits.hook_disconnected_max),
            subscriptions: Mutex::default(),
        };
        let limits = &config.limits;
        Ok(Some(HttpHook {
            config: hook.clone(),
            asker: Arc::new(asker),
            threads: Threads::new("umbel-hook", limits.hook_threads, limits.hook_queue_max),
            telling: Threads::new("umbel-told", 1, 1),
        }))
    }
}

impl Hook for HttpHook {
    fn has(&self, event: HookEvent) -> bool {
        self.config.has(event)
    }

    fn headers(&self) -> &[String] {
        &self.config.headers
    }

    fn topics(&self) -> &[Pattern] {
        &self.config.topics
    }

    fn ask(&self, event: HookEvent, question: Question) -> Pending {
        let (asker, pending) = (&self.asker, Pending::new());
        // Those of nobody in particular are never taken together.
        let key = match (event, &question.subject) {
            (HookEvent::Subscribe, Some(subject)) => Some((
                subject.clone(),
                question.topic.clone(),
                question.pattern.clone(),
            )),
            _ => None,
        };
        if let Some(key) = &key
            && asker.joins(key, &pending)
        {
            return pending;
        }
        let bytes = question
            .message
            .as_ref()
            .map_or(0, |message| message.bytes());
        let mut turn = Turn {
            asker: Arc::clone(asker),
            event,
            question,
            key,
            pending: pending.clone(),
            admitted: None,
            bytes,
        };
        let before = asker.counts.hold_bytes(bytes);
        if bytes > 0 && before + bytes > asker.message_bytes_max {
            // Its end says so.
            return pending;
        }
        turn.admitted = lock(&asker.breaker).admit(asker.now_ms());
        if turn.admitted.is_none() {
            turn.fail(HookResult::Open);
        } else if let Err(job) = self.threads.submit(Box::new(move || turn.run())) {
            // Its end says that there is no answer, and counts no failure of the application's.
            drop(job);
        }
        pending
    }

    fn tell(&self, ended: Ended) {
        let asker = &self.asker;
        if asker.ended.push(ended).is_err() {
            asker.counts.add(HookEvent::Disconnected, HookResult::Full);
        }
        if !asker.ended.begin() {
            return;
        }
        let teller = Arc::clone(asker);
        let begun = self.telling.submit(Box::new(move || teller.tell_all()));
        if begun.is_err() {
            asker.ended.stop();
        }
    }
}

impl Drop for HttpHook {
    fn drop(&mut self) {
        self.asker.ended.end();
    }
}

impl Asker {
    /// Tells of all ends that wait. It goes on until there is none, or the server has ended.
    fn tell_all(&self) {
        while let Some(batch) = self.ended.take() {
            let Some(batch) = self.tell_some(batch) else {
                continue;
            };
            let lost = self.ended.put_back(batch);
            let counts = &self.counts;
            counts.add_many(HookEvent::Disconnected, HookResult::Full, lost);
            if self.ended.wait(Duration::from_millis(TELL_AGAIN_MS)) {
                return;
            }
        }
    }

    /// Tells of some ends. Gives them back if they are to be told again.
    fn tell_some(&self, batch: Vec<Ended>) -> Option<Vec<Ended>> {
        let event = HookEvent::Disconnected;
        let admitted = lock(&self.breaker).admit(self.now_ms());
        let Some(admitted) = admitted else {
            return Some(batch);
        };
        let (begun, now_ms) = (Instant::now(), wall_ms());
        let told = Told::new(question_id(now_ms, random()), &self.node, &batch);
        let body = serde_json::to_vec(&told).unwrap_or_default();
        let outcome = self.post(event, now_ms, &body);
        let result = match &outcome {
            Ok(answered) => match answered.status {
                200..=299 => HookResult::Allowed,
                429 | 503 => HookResult::Unavailable,
                _ => HookResult::Invalid,
            },
            Err(RequestError::TimedOut) => HookResult::TimedOut,
            Err(_) => HookResult::Failed,
        };
        self.counts.observe(event, begun.elapsed().as_secs_f64());
        self.record(&admitted, result.is_failure());
        match result {
            HookResult::Allowed | HookResult::Invalid => {
                if let Ok(answered) = outcome
                    && result == HookResult::Invalid
                {
                    log::error!("the hook answered {event} with status {}", answered.status);
                }
                self.counts.add_many(event, result, batch.len());
                None
            }
            _ => {
                self.counts.add(event, result);
                Some(batch)
            }
        }
    }

    fn post(&self, event: HookEvent, now_ms: u64, body: &[u8]) -> Result<Answered, RequestError> {
        let signed = self.signer.sign(now_ms / 1000, body);
        let headers = signed.as_deref().map(|value| (signature::HEADER, value));
        self.client.post(event.name(), headers.as_slice(), body)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether a subscription is allowed already, or somebody asks about it. Else it is this one's to ask.
    fn joins(&self, key: &SubscriptionKey, pending: &Pending) -> bool {
        let now_ms = self.now_ms();
        let mut subscriptions = lock(&self.subscriptions);
        if subscriptions.len() >= CACHED_MAX {
            subscriptions.retain(|_, it| match it {
                Subscription::Asked(_) => true,
                Subscription::Allowed(until_ms, _) => *until_ms > now_ms,
            });
            if subscriptions.len() >= CACHED_MAX {
                subscriptions.retain(|_, it| matches!(it, Subscription::Asked(_)));
            }
        }
        match subscriptions.entry(key.clone()) {
            Entry::Occupied(mut entry) => match entry.get_mut() {
                Subscription::Asked(waiting) => {
                    waiting.push(pending.clone());
                    true
                }
                Subscription::Allowed(until_ms, terms) if *until_ms > now_ms => {
                    let decision = Decision::Subscription(terms.clone());
                    drop(subscriptions);
                    pending.decide(decision);
                    true
                }
                Subscription::Allowed(..) => {
                    entry.insert(Subscription::Asked(Vec::new()));
                    false
                }
            },
            Entry::Vacant(entry) => {
                entry.insert(Subscription::Asked(Vec::new()));
                false
            }
        }
    }

    /// Takes those who wait for the answer about a subscription.
    fn settle(&self, key: &SubscriptionKey, decision: &Decision) -> Vec<Pending> {
        let mut subscriptions = lock(&self.subscriptions);
        let before = match decision {
            Decision::Subscription(terms) if self.cache_ms > 0 => {
                let left_ms = terms
                    .expires_at_ms
                    .map(|at_ms| at_ms.saturating_sub(wall_ms()));
                let kept_ms = left_ms.unwrap_or(u64::MAX).min(self.cache_ms);
                let until_ms = self.now_ms() + kept_ms;
                subscriptions.insert(key.clone(), Subscription::Allowed(until_ms, terms.clone()))
            }
            _ => subscriptions.remove(key),
        };
        match before {
            Some(Subscription::Asked(waiting)) => waiting,
            _ => Vec::new(),
        }
    }

    fn record(&self, admitted: &Admitted, is_failure: bool) {
        let mut breaker = lock(&self.breaker);
        let changes = breaker.record(admitted, is_failure, self.now_ms());
        self.counts.set_open(breaker.is_open());
        drop(breaker);
        match (changes, is_failure) {
            (true, true) => log::error!("the hook does not answer: it is not asked for a while"),
            (true, false) => log::info!("the hook answers again"),
            _ => {}
        }
    }
}

impl Turn {
    fn run(mut self) {
        let begun = Instant::now();
        // Else whoever asked has gone, or waits no more.
        if self.pending.is_wanted() || self.key.is_some() {
            self.ask(begun);
            let counts = &self.asker.counts;
            counts.observe(self.event, begun.elapsed().as_secs_f64());
        }
    }

    fn ask(&mut self, begun: Instant) {
        let asker = Arc::clone(&self.asker);
        let (now_ms, random) = (wall_ms(), random());
        self.question.id = question_id(now_ms, random);
        self.question.node = asker.node.to_string();
        let Ok(body) = serde_json::to_vec(&self.question) else {
            return self.fail(HookResult::Failed);
        };
        match asker.post(self.event, now_ms, &body) {
            Ok(answered) => {
                let retry_after = answered.header("retry-after");
                let answer = (answered.status, retry_after, &*answered.body);
                let retry_s = retry_after_s(random);
                let (mut decision, mut result) =
                    read_answer(self.event, answer, &asker.rules, retry_s);
                if let Decision::Subscription(terms) = &decision
                    && terms.expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms)
                {
                    log::error!("the hook allowed a subscription until a moment that is over");
                    decision = no_answer(self.event, retry_s);
                    result = HookResult::Invalid;
                }
                if let Decision::Caller(Ok(Some(identity))) = &decision
                    && identity
                        .expires_at_ms()
                        .is_some_and(|at_ms| at_ms <= now_ms)
                {
                    decision = Decision::Caller(Err(Denied::Invalid(TokenFault::Expired)));
                    result = HookResult::Denied;
                }
                self.decide(decision, result);
            }
            Err(error) => {
                let (event, target) = (self.event, asker.client.target());
                let took_ms = begun.elapsed().as_millis();
                log::warn!(
                    "the hook {target} has no answer to {event} after {took_ms} ms: {error}"
                );
                self.fail(match error {
                    RequestError::TimedOut => HookResult::TimedOut,
                    RequestError::TooLong => HookResult::Invalid,
                    _ => HookResult::Failed,
                });
            }
        }
    }

    fn fail(&mut self, result: HookResult) {
        self.decide(no_answer(self.event, retry_after_s(random())), result);
    }

    fn decide(&mut self, decision: Decision, result: HookResult) {
        self.asker.counts.add(self.event, result);
        // Whoever is answered, and asks again, finds it counted.
        if let Some(admitted) = self.admitted.take() {
            self.asker.record(&admitted, result.is_failure());
        }
        if let Some(key) = self.key.take() {
            for pending in self.asker.settle(&key, &decision) {
                pending.decide(decision.clone());
            }
        }
        self.pending.decide(decision);
    }
}

impl Drop for Turn {
    /// It had no thread, or its own panicked.
    fn drop(&mut self) {
        let asker = &self.asker;
        asker.counts.release_bytes(self.bytes);
        if let Some(admitted) = self.admitted.take() {
            lock(&asker.breaker).release(&admitted, asker.now_ms());
        }
        if self.key.is_some() || self.pending.is_wanted() {
            self.fail(HookResult::Full);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970.
fn wall_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(0))
}

fn random() -> [u8; 10] {
    let mut random = [0; 10];
    // Without entropy names repeat, which an application that remembers them refuses.
    let _ = getrandom::fill(&mut random);
    random
}

/// One to five seconds: each another, so that those who were refused do not come together.
fn retry_after_s(random: [u8; 10]) -> u32 {
    u32::from(random[9] % 5) + 1
}

/// Name of a question: a ULID, which begins with the time.
fn question_id(now_ms: u64, random: [u8; 10]) -> String {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let mut bits = u128::from(now_ms & 0xffff_ffff_ffff);
    for byte in random {
        bits = bits << 8 | u128::from(byte);
    }
    (0..26)
        .rev()
        .map(|digit| char::from(DIGITS[(bits >> (digit * 5)) as usize & 31]))
        .collect()
}

/// Name of this machine, where the system tells it.
fn node_name() -> Arc<str> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let name = name.or_else(|_| std::fs::read_to_string("/etc/hostname"));
    name.map_or_else(|_| "umbel".into(), |name| name.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_questions_are_ulids_in_the_order_of_time() {
        // The example of the ULID specification: 01ARYZ6S41 is 1469918176385.
        let name = question_id(1_469_918_176_385, [0xff; 10]);
        assert_eq!(name, "01ARYZ6S41ZZZZZZZZZZZZZZZZ");
        assert!(question_id(1, [0xff; 10]) < question_id(2, [0; 10]));
        assert!((0..=255).all(|byte| (1..=5).contains(&retry_after_s([byte; 10]))));
    }
}
