//! The hook: questions to the application by HTTP, on threads of their own.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::address::Plain;
use super::breaker::{Admitted, Breaker};
use super::client::{Client, ClientSettings, RequestError};
use super::signature::{self, Signer};
use super::target::Target;
use super::threads::Threads;
use crate::auth::hook::{
    ANSWER_BYTES_MAX, AnswerRules, Hook, HookResult, Question, no_answer, read_answer,
};
use crate::auth::verdict::{Decision, Pending};
use crate::config::{Config, ConfigError, HookConfig, HookEvent};
use crate::metrics::hook::HookCounts;
use crate::topic::Pattern;

/// Most answers about subscriptions that are kept.
const CACHED_MAX: usize = 65_536;

/// The hook of a server.
pub struct HttpHook {
    config: HookConfig,
    asker: Arc<Asker>,
    threads: Threads,
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
    /// Subscriptions by subject and topic.
    subscriptions: Mutex<HashMap<SubscriptionKey, Subscription>>,
}

/// Subject, and what it asks for.
type SubscriptionKey = (String, Option<String>, Option<String>);

/// A subscription that is asked about, or was.
enum Subscription {
    /// All who wait for the one answer.
    Asked(Vec<Pending>),
    /// It was allowed until then, in milliseconds.
    Allowed(u64),
}

/// A question on its way. If nobody answers it, its end does.
struct Turn {
    asker: Arc<Asker>,
    event: HookEvent,
    question: Question,
    key: Option<SubscriptionKey>,
    pending: Pending,
    admitted: Option<Admitted>,
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
            subscriptions: Mutex::default(),
        };
        let limits = &config.limits;
        Ok(Some(HttpHook {
            config: hook.clone(),
            asker: Arc::new(asker),
            threads: Threads::new("umbel-hook", limits.hook_threads, limits.hook_queue_max),
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
        let mut turn = Turn {
            asker: Arc::clone(asker),
            event,
            question,
            key,
            pending: pending.clone(),
            admitted: None,
        };
        turn.admitted = lock(&asker.breaker).admit(asker.now_ms());
        if turn.admitted.is_none() {
            turn.fail(HookResult::Open);
        } else if let Err(job) = self.threads.submit(Box::new(move || turn.run())) {
            // Its end says that there is no answer, and counts no failure of the application's.
            drop(job);
        }
        pending
    }
}

impl Asker {
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
                Subscription::Allowed(until_ms) => *until_ms > now_ms,
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
                Subscription::Allowed(until_ms) if *until_ms > now_ms => {
                    drop(subscriptions);
                    pending.decide(Decision::Access(Ok(())));
                    true
                }
                Subscription::Allowed(_) => {
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
    fn settle(&self, key: &SubscriptionKey, is_allowed: bool) -> Vec<Pending> {
        let mut subscriptions = lock(&self.subscriptions);
        let before = match is_allowed && self.cache_ms > 0 {
            true => {
                let until_ms = self.now_ms() + self.cache_ms;
                subscriptions.insert(key.clone(), Subscription::Allowed(until_ms))
            }
            false => subscriptions.remove(key),
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
        let result = match self.pending.is_wanted() || self.key.is_some() {
            true => self.ask(begun),
            // Whoever asked has gone, or waits no more.
            false => return,
        };
        let asker = &self.asker;
        asker
            .counts
            .observe(self.event, begun.elapsed().as_secs_f64());
        if let Some(admitted) = self.admitted.take() {
            asker.record(&admitted, result.is_failure());
        }
    }

    fn ask(&mut self, begun: Instant) -> HookResult {
        let asker = Arc::clone(&self.asker);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = now.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(0));
        let random = random();
        self.question.id = question_id(now_ms, random);
        self.question.node = asker.node.to_string();
        let Ok(body) = serde_json::to_vec(&self.question) else {
            return self.fail(HookResult::Failed);
        };
        let signed = asker.signer.sign(now_ms / 1000, &body);
        let headers = signed.as_deref().map(|value| (signature::HEADER, value));
        let outcome = asker
            .client
            .post(self.event.name(), headers.as_slice(), &body);
        match outcome {
            Ok(answered) => {
                let retry_after = answered.header("retry-after");
                let answer = (answered.status, retry_after, &*answered.body);
                let retry_s = retry_after_s(random);
                let (decision, result) = read_answer(self.event, answer, &asker.rules, retry_s);
                self.decide(decision, result);
                result
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
                })
            }
        }
    }

    fn fail(&mut self, result: HookResult) -> HookResult {
        self.decide(no_answer(self.event, retry_after_s(random())), result);
        result
    }

    fn decide(&mut self, decision: Decision, result: HookResult) {
        self.asker.counts.add(self.event, result);
        if let Some(key) = self.key.take() {
            let is_allowed = matches!(decision, Decision::Access(Ok(())));
            for pending in self.asker.settle(&key, is_allowed) {
                if let Some(outcome) = decision.access() {
                    pending.answer(outcome);
                }
            }
        }
        self.pending.decide(decision);
    }
}

impl Drop for Turn {
    /// It had no thread, or its own panicked.
    fn drop(&mut self) {
        if self.key.is_some() || self.pending.is_wanted() {
            self.fail(HookResult::Full);
        }
        if let Some(admitted) = self.admitted.take() {
            let asker = &self.asker;
            lock(&asker.breaker).release(&admitted, asker.now_ms());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
