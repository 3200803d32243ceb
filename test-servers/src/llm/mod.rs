//! The API of an LLM provider.

mod call;
mod fault;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;

use self::call::{Api, Call};
pub use self::fault::LlmFault;
use crate::http::{Action, Http};
use crate::scripted::RecordedRequest;

type Reply = Arc<dyn Fn(&str) -> String + Send + Sync>;
type Faults = Arc<dyn Fn(&str, u32) -> Option<LlmFault> + Send + Sync>;

/// The API of an LLM provider, which fails on demand.
///
/// It answers requests in the format of OpenAI (`POST /v1/chat/completions`) and of Anthropic
/// (`POST /v1/messages`). A request with `"stream": true` gets an event stream. The prompt is the
/// text of the last message.
///
/// Without settings it accepts every key and every model, never fails, and replies to each prompt
/// with the JSON object `{"echo": PROMPT}`. It rejects a request as these APIs do if its body is
/// invalid, its key is not accepted, or its model is unknown. The other requests can fail in the
/// ways that [`LlmFault`] lists.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use test_servers::{Llm, LlmFault};
///
/// let llm = Llm::start().await;
/// llm.set_reply(|prompt| format!("You said: {prompt}"));
/// llm.script([Some(LlmFault::Unavailable), None]);
///
/// # test_servers::install_ring();
/// let client = reqwest::Client::new();
/// let url = format!("{}/v1/chat/completions", llm.url());
/// let body = r#"{"model": "small", "messages": [{"role": "user", "content": "Hello"}]}"#;
/// let ask = || client.post(&url).body(body).send();
/// assert_eq!(ask().await.unwrap().status(), 503);
/// assert!(ask().await.unwrap().text().await.unwrap().contains("You said: Hello"));
///
/// let counts = llm.counts("Hello");
/// assert_eq!((counts.requests, counts.answered), (2, 1));
/// # }
/// ```
#[derive(Debug)]
pub struct Llm {
    http: Http,
    state: Arc<Mutex<State>>,
}

/// How often a prompt was sent, and answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PromptCounts {
    /// The number of valid requests with the prompt, including the failed ones.
    pub requests: u32,
    /// The number of requests to which the server sent the complete reply.
    pub answered: u32,
}

struct State {
    keys: Option<Vec<String>>,
    models: Option<Vec<String>>,
    script: VecDeque<Option<LlmFault>>,
    faults: Faults,
    reply: Reply,
    counts: HashMap<String, PromptCounts>,
}

/// Whether a request fails.
enum Step {
    Known(Option<LlmFault>),
    Function(Faults),
}

impl Llm {
    /// Starts the server on a loopback port that the system picks.
    ///
    /// # Panics
    ///
    /// Panics if loopback cannot be bound, or if there is no tokio runtime.
    pub async fn start() -> Self {
        let http = Http::start().await;
        let state = Arc::new(Mutex::new(State {
            keys: None,
            models: None,
            script: VecDeque::new(),
            faults: Arc::new(|_, _| None),
            reply: Arc::new(|prompt| json!({ "echo": prompt }).to_string()),
            counts: HashMap::new(),
        }));
        let shared = Arc::clone(&state);
        http.set_handler(move |request| answer(&shared, request));
        Self { http, state }
    }

    /// Returns `http://` and the address, without a slash and without `/v1` at the end.
    pub fn url(&self) -> String {
        self.http.url()
    }

    /// Returns the server below this API, which records the requests.
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// Sets the keys that are accepted. Other requests are rejected with status 401.
    pub fn set_keys<K: Into<String>>(&self, keys: impl IntoIterator<Item = K>) {
        let keys = keys.into_iter().map(Into::into).collect();
        self.state().keys = Some(keys);
    }

    /// Sets the models that exist. Other requests are rejected with status 404.
    pub fn set_models<M: Into<String>>(&self, models: impl IntoIterator<Item = M>) {
        let models = models.into_iter().map(Into::into).collect();
        self.state().models = Some(models);
    }

    /// Sets the function that returns the text of the reply to a prompt.
    ///
    /// The function runs on the server's task, so it must not block.
    pub fn set_reply(&self, reply: impl Fn(&str) -> String + Send + Sync + 'static) {
        self.state().reply = Arc::new(reply);
    }

    /// Appends steps to the script. Each request takes one. `None` is a request that succeeds.
    ///
    /// A request that is invalid, or has a wrong key or model, takes no step.
    pub fn script(&self, steps: impl IntoIterator<Item = Option<LlmFault>>) {
        self.state().script.extend(steps);
    }

    /// Sets a function that returns the fault of a request when the script is empty.
    ///
    /// Its arguments are the prompt, and the number of the request among those with this prompt,
    /// counted from 1. See also [`random_faults`].
    pub fn set_faults(&self, faults: impl Fn(&str, u32) -> Option<LlmFault> + Send + Sync + 'static) {
        self.state().faults = Arc::new(faults);
    }

    /// Returns how often a prompt was sent and answered.
    pub fn counts(&self, prompt: &str) -> PromptCounts {
        self.state().counts.get(prompt).copied().unwrap_or_default()
    }

    /// Returns the counts of all prompts.
    pub fn all_counts(&self) -> HashMap<String, PromptCounts> {
        self.state().counts.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Returns a function for [`Llm::set_faults`] that fails a part of the requests at random.
///
/// `rate` is the part, in 0..=1. Each of `faults` is equally likely. The fault of a request depends
/// only on the seed, the prompt and the number of the request, so that a run can be repeated.
pub fn random_faults(
    rate: f64,
    seed: u64,
    faults: &[LlmFault],
) -> impl Fn(&str, u32) -> Option<LlmFault> + Send + Sync + use<> {
    let faults = faults.to_vec();
    move |prompt, number| {
        let mut hasher = DefaultHasher::new();
        (seed, prompt, number).hash(&mut hasher);
        let mut random = fastrand::Rng::with_seed(hasher.finish());
        if random.f64() < rate { random.choice(&faults).copied() } else { None }
    }
}

/// Returns the action for a request, and counts the request.
fn answer(state: &Mutex<State>, request: &RecordedRequest) -> Action {
    let Some(api) = Api::of(request) else { return Action::status(404) };
    let call = match Call::read(api, request) {
        Ok(call) => call,
        Err(error) => return api.error_action(&error),
    };
    let (number, step, reply) = lock(state).begin(&call);
    // The functions that the test has set run without the lock.
    let fault = match step {
        Step::Known(fault) => fault,
        Step::Function(faults) => faults(&call.prompt, number),
    };
    let reply = reply(&call.prompt);
    if fault.is_none_or(LlmFault::sends_reply) {
        lock(state).counts.entry(call.prompt.clone()).or_default().answered += 1;
    }
    match fault {
        None => call.reply(&reply),
        Some(fault) => fault.action(&call, &reply),
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // No code panics between two changes, so the state is valid even if the lock is poisoned.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Counts a request. Returns its number among those with its prompt, and how it is answered.
    fn begin(&mut self, call: &Call) -> (u32, Step, Reply) {
        let counts = self.counts.entry(call.prompt.clone()).or_default();
        counts.requests += 1;
        let number = counts.requests;
        let step = if self.keys.as_ref().is_some_and(|keys| !keys.contains(&call.key)) {
            Step::Known(Some(LlmFault::InvalidKey))
        } else if self.models.as_ref().is_some_and(|models| !models.contains(&call.model)) {
            Step::Known(Some(LlmFault::UnknownModel))
        } else {
            match self.script.pop_front() {
                Some(step) => Step::Known(step),
                None => Step::Function(Arc::clone(&self.faults)),
            }
        };
        (number, step, Arc::clone(&self.reply))
    }
}

/// Without the keys and the functions.
impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("models", &self.models)
            .field("script", &self.script)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}
