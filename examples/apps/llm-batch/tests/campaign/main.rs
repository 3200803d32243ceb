//! Kills and resumes a job at random, while the API fails a fifth of the requests.
//!
//! The runs alternate among the styles of the API, with and without streamed replies.
//!
//! Afterwards each item must have exactly one good result, and no item may have been sent again
//! after its result was written.

mod agents;
mod check;
mod style;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use test_servers::{Llm, LlmFault, PromptCounts, random_faults};
use tokio::time::Instant;

use self::agents::{Agents, End};
use self::style::STYLES;

const JOB: &str = "campaign";
const MAX_RETRIES: u32 = 3;
const PARSE_ERROR_RETRIES: u32 = 2;

/// The part of the requests that fail.
const FAULT_RATE: f64 = 0.2;

/// How long the API works on a reply.
const REPLY_TIME: Duration = Duration::from_millis(20);

/// The most runs of `resume --retry-failures`. With each run, few failed items fail again.
const MAX_RETRY_RUNS: usize = 20;

/// The size of a campaign.
struct Plan {
    items: usize,
    batch_size: usize,
    /// How often the process is killed before each item has a result.
    kills: usize,
    /// How often the process is killed while it retries failures.
    kills_in_retries: usize,
    seed: u64,
}

/// A job, its files and its API.
struct Campaign {
    plan: Plan,
    folder: TempDir,
    llm: Llm,
    random: fastrand::Rng,
    /// The number of requests that failed in each way.
    faults: Arc<Mutex<BTreeMap<String, u32>>>,
    /// The items that had a good result when a run ended, with their requests until then.
    finished: BTreeMap<String, PromptCounts>,
    runs: usize,
    /// The number of results in each style.
    results: [usize; STYLES.len()],
    kills: usize,
    /// How often the circuit of the model opened.
    openings: usize,
}

/// Returns the faults after which the job goes on.
fn faults() -> Vec<LlmFault> {
    [LlmFault::TRANSIENT, &[LlmFault::Hang, LlmFault::StalledBody]].concat()
}

fn resume() -> Vec<String> {
    ["resume", JOB].map(str::to_owned).to_vec()
}

/// Returns the name of a fault without its values.
fn kind(fault: LlmFault) -> String {
    let text = format!("{fault:?}");
    text.split([' ', '(']).next().unwrap_or_default().to_owned()
}

impl Campaign {
    async fn new(plan: Plan) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut input = String::new();
        for id in 0..plan.items {
            writeln!(input, "{}", json!({ "id": id })).unwrap();
        }
        fs::write(folder.path().join("items.jsonl"), input).unwrap();

        let llm = Llm::start().await;
        let failed: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
        let faults_by_kind = Arc::clone(&failed);
        let choose = random_faults(FAULT_RATE, plan.seed, &faults());
        llm.set_faults(move |prompt, number| {
            let Some(fault) = choose(prompt, number) else { return Some(LlmFault::Delay(REPLY_TIME)) };
            *failed.lock().unwrap().entry(kind(fault)).or_default() += 1;
            Some(fault)
        });
        let random = fastrand::Rng::with_seed(plan.seed);
        Self {
            plan,
            folder,
            llm,
            random,
            faults: faults_by_kind,
            finished: BTreeMap::new(),
            runs: 0,
            results: [0; STYLES.len()],
            kills: 0,
            openings: 0,
        }
    }

    /// Runs the job until each item has a good result.
    async fn run(&mut self) {
        let mut kills = self.plan.kills;
        let mut end = self.run_once(kills > 0, self.process()).await;
        while end == End::Killed {
            self.check_finished_items();
            kills -= 1;
            end = self.run_once(kills > 0, resume()).await;
        }
        let mut kills = self.plan.kills_in_retries;
        while end != End::Exited(0) {
            assert!(matches!(end, End::Killed | End::Exited(1)), "{end:?}");
            assert!(
                self.runs < self.plan.kills + MAX_RETRY_RUNS,
                "items still fail after {} runs",
                self.runs
            );
            self.check_finished_items();
            end = self.retry_failures(kills > 0).await;
            kills = kills.saturating_sub(1);
        }
    }

    /// Starts or resumes the job, and kills it after a random number of results.
    async fn run_once(&mut self, kill: bool, arguments: Vec<String>) -> End {
        // On average, the kills are spread over three quarters of the items.
        let most = self.plan.items * 3 / 2 / (self.plan.kills + 1);
        let kill_after = kill.then(|| self.random.usize(1..=most));
        self.run_agents(&arguments, kill_after).await
    }

    async fn retry_failures(&mut self, kill: bool) -> End {
        let kill_after = kill.then(|| self.random.usize(0..=3));
        let arguments = [resume(), vec!["--retry-failures".to_owned()]].concat();
        self.run_agents(&arguments, kill_after).await
    }

    async fn run_agents(&mut self, arguments: &[String], kill_after: Option<usize>) -> End {
        let style = self.runs % STYLES.len();
        let arguments = [arguments, &STYLES[style].flags(&self.llm)].concat();
        let mut agents = Agents::start(self.folder.path(), &arguments);
        let end = agents.run(kill_after).await;
        self.runs += 1;
        self.results[style] += agents.results();
        self.kills += usize::from(end == End::Killed);
        self.openings += agents.openings();
        end
    }

    fn process(&self) -> Vec<String> {
        let arguments = format!(
            "process items.jsonl output.jsonl --job-id {JOB} --model small --batch-size {} \
             --max-retries {MAX_RETRIES} --parse-error-retries {PARSE_ERROR_RETRIES} --retry-delay 0 \
             --timeout 1 --prompt",
            self.plan.batch_size,
        );
        arguments.split_whitespace().map(str::to_owned).chain(["Item {id}".to_owned()]).collect()
    }

    fn results_file(&self) -> PathBuf {
        self.folder.path().join(format!(".checkpoints/{JOB}.results.jsonl"))
    }
}

#[tokio::test]
async fn killed_job_has_one_result_for_each_item() {
    let plan = Plan { items: 300, batch_size: 60, kills: 4, kills_in_retries: 1, seed: 1 };
    let mut campaign = Campaign::new(plan).await;
    campaign.run().await;
    campaign.check();
}

/// Prints the report of `./campaign llm_batch`.
#[tokio::test]
#[ignore = "takes minutes; run by `./campaign llm_batch`"]
async fn campaign_of_ten_thousand_items() {
    let seed = std::env::var("CAMPAIGN_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let plan = Plan { items: 10_000, batch_size: 100, kills: 30, kills_in_retries: 3, seed };
    let started = Instant::now();
    let mut campaign = Campaign::new(plan).await;
    campaign.run().await;
    campaign.check();
    campaign.print_report(started.elapsed());
}
