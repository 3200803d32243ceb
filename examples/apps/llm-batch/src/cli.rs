//! The command line.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{StringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};

use crate::config::{Api, JobConfig, Mode, range};
use crate::llm::{ApiKey, InvalidKey};

/// The folder of the jobs' files, if no other is given.
pub const DEFAULT_CHECKPOINT_DIR: &str = ".checkpoints";

const BASE_URL_HELP: &str = "The address of the API, with /v1 for the style openai, as in http://localhost:8000/v1, and \
    without it for anthropic";

/// Sends each item of a file to an LLM API, and loses no result
#[derive(Debug, Parser)]
#[command(name = "agents", version, max_term_width = 100)]
pub struct Cli {
    /// What the program does.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of the program.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a job: send each item of INPUT to the API, and write the results to OUTPUT
    Process(ProcessArgs),
    /// Continue a job that was aborted, interrupted or killed
    Resume(ResumeArgs),
    /// Watch a job survive a failing API, a revoked key and SIGKILL in 10 seconds; needs no key
    Demo,
}

/// The arguments of `process`.
#[derive(Args, Debug)]
pub struct ProcessArgs {
    /// The items: JSON objects, one on each line, or a JSON array if the name ends in .json
    pub input: PathBuf,
    /// The results: JSON Lines, or a JSON array if the name ends in .json
    pub output: PathBuf,
    /// The prompt with {field} placeholders, or @FILE to read it from a file
    #[arg(long, value_name = "TEXT|@FILE")]
    pub prompt: String,
    /// The configuration in TOML or JSON; flags take precedence over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The name of the job, for `resume` [default: INPUT and a number, such as reviews-1]
    #[arg(long, value_name = "JOB_ID")]
    pub job_id: Option<String>,
    /// The arguments that `resume` has, too.
    #[command(flatten)]
    pub common: CommonArgs,
    /// The settings of the job.
    #[command(flatten)]
    pub settings: SettingArgs,
}

/// The arguments of `resume`.
#[derive(Args, Debug)]
pub struct ResumeArgs {
    /// The name of the job
    pub job_id: String,
    /// Retry items that failed, in addition to the items that are not processed
    #[arg(long)]
    pub retry_failures: bool,
    /// Write the results to another file than OUTPUT of `process`
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The arguments that `process` has, too.
    #[command(flatten)]
    pub common: CommonArgs,
    /// The settings of the job that differ from those of its start.
    #[command(flatten)]
    pub settings: SettingArgs,
}

/// The arguments that are no settings of the job.
#[derive(Args, Debug)]
pub struct CommonArgs {
    /// The key of the API. A wrong key is no error here, because the text of clap's error has it.
    #[arg(
        long,
        value_name = "KEY",
        value_parser = StringValueParser::new().map(|key| ApiKey::new(&key)),
        help = "The key of the API [env: OPENAI_API_KEY, or ANTHROPIC_API_KEY with --api anthropic]"
    )]
    pub api_key: Option<Result<ApiKey, InvalidKey>>,
    /// The folder of the results, checkpoints and failures of all jobs
    #[arg(long, value_name = "DIR", default_value = DEFAULT_CHECKPOINT_DIR)]
    pub checkpoint_dir: PathBuf,
    /// Print one JSON object for each event on stdout, for machines
    #[arg(long)]
    pub json: bool,
}

/// The settings of a job. They take precedence over the configuration file and the checkpoint.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Settings of the job", allow_negative_numbers = true)]
#[expect(clippy::struct_excessive_bools, reason = "each one is a flag of its own")]
pub struct SettingArgs {
    /// The style of the API [default: openai]
    #[arg(long, value_enum)]
    pub api: Option<Api>,
    /// The model of items that name no model [default: gpt-4o-mini]
    #[arg(long)]
    pub model: Option<String>,
    /// The field of an item that names its model
    #[arg(long, value_name = "FIELD")]
    pub model_field: Option<String>,
    /// The address of the API.
    #[arg(long, value_name = "URL", help = BASE_URL_HELP)]
    pub base_url: Option<String>,
    /// The sampling temperature [default: 0.7]
    #[arg(long, value_name = "T")]
    pub temperature: Option<f64>,
    /// The largest number of tokens of a reply [default: 1500]
    #[arg(long, value_name = "N", value_parser = whole_number::<u32>(range::MAX_TOKENS))]
    pub max_tokens: Option<u32>,
    /// Ask for streamed replies
    #[arg(long, overrides_with = "no_stream")]
    pub stream: bool,
    /// Ask for replies that are not streamed, the default
    #[arg(long, overrides_with = "stream")]
    pub no_stream: bool,
    /// The longest time of an attempt [default: 120]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,
    /// Whether calls run concurrently [default: async]
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,
    /// The largest number of concurrent calls [default: 10]
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>(range::BATCH_SIZE))]
    pub batch_size: Option<usize>,
    /// The number of attempts of a call, the first one included [default: 3]
    #[arg(long, value_name = "N", value_parser = whole_number::<u32>(range::MAX_RETRIES))]
    pub max_retries: Option<u32>,
    /// The delay before the first retry; jitter adds up to 5 seconds [default: 1]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub retry_delay: Option<Duration>,
    /// The longest time that an item waits for the circuit of its model; then it fails (default:
    /// 3600, 0 to fail at once)
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub max_wait: Option<Duration>,
    /// How often an item is asked again whose reply does not parse [default: 2]
    #[arg(long, value_name = "N", value_parser = whole_number::<u32>(range::PARSE_ERROR_RETRIES))]
    pub parse_error_retries: Option<u32>,
    /// Ask whether to continue after every N results [default: never]
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>(range::CHECKIN_INTERVAL))]
    pub checkin_interval: Option<usize>,
    /// Trip after N consecutive fatal errors (default: 5, 0 to disable)
    #[arg(long, value_name = "N", value_parser = whole_number::<u32>(range::CIRCUIT_BREAKER_THRESHOLD))]
    pub circuit_breaker: Option<u32>,
    /// Keep the reply as text instead of extracting JSON from it
    #[arg(long)]
    pub no_post_process: bool,
    /// Keep the JSON of the reply apart from the fields of the item
    #[arg(long)]
    pub no_merge: bool,
    /// Add the text of the reply to each result
    #[arg(long)]
    pub include_raw: bool,
}

impl SettingArgs {
    /// Replaces the settings that are given.
    pub fn apply(&self, config: &mut JobConfig) {
        let llm = &mut config.llm;
        replace(&mut llm.api, self.api);
        replace(&mut llm.model, self.model.clone());
        replace_optional(&mut llm.model_field, self.model_field.clone());
        replace_optional(&mut llm.base_url, self.base_url.clone());
        replace(&mut llm.temperature, self.temperature);
        replace(&mut llm.max_tokens, self.max_tokens);
        replace(&mut llm.timeout, self.timeout);
        llm.stream = (llm.stream || self.stream) && !self.no_stream;

        let processing = &mut config.processing;
        replace(&mut processing.mode, self.mode);
        replace(&mut processing.batch_size, self.batch_size);
        replace(&mut processing.max_retries, self.max_retries);
        replace(&mut processing.retry_delay, self.retry_delay);
        replace(&mut processing.max_wait, self.max_wait);
        replace(&mut processing.parse_error_retries, self.parse_error_retries);
        replace_optional(&mut processing.checkin_interval, self.checkin_interval);
        replace(&mut processing.circuit_breaker_threshold, self.circuit_breaker);
        processing.post_process &= !self.no_post_process;
        processing.merge_results &= !self.no_merge;
        processing.include_raw_result |= self.include_raw;
    }
}

fn replace<T>(setting: &mut T, given: Option<T>) {
    if let Some(value) = given {
        *setting = value;
    }
}

fn replace_optional<T>(setting: &mut Option<T>, given: Option<T>) {
    if given.is_some() {
        *setting = given;
    }
}

/// Returns a parser of numbers of the type that the setting has. The range is checked with the
/// configuration.
fn whole_number<T: FromStr>(range: &'static str) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| text.parse().map_err(|_| format!("allowed is {range}"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let time = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.ok_or_else(|| "not a time in seconds, such as 1.5".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn settings(flags: &[&str]) -> SettingArgs {
        let words = ["agents", "process", "in.jsonl", "out.jsonl", "--prompt", "p"];
        match Cli::parse_from(words.iter().chain(flags)).command {
            Command::Process(args) => args.settings,
            _ => unreachable!("the command is `process`"),
        }
    }

    fn help(command: &str) -> String {
        let mut cli = Cli::command();
        let command = cli.find_subcommand_mut(command).expect("a command of this name");
        command.render_long_help().to_string()
    }

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn resume_retry_failures_flag_exists() {
        assert!(help("resume").contains("--retry-failures"));
        assert!(help("resume").contains("Retry items that failed"));
        assert!(help("resume").contains("OPENAI_API_KEY"));
        assert!(help("resume").contains("--checkin-interval"));
        let cli = Cli::parse_from(["agents", "resume", "job", "--retry-failures"]);
        let Command::Resume(args) = cli.command else { panic!("the command is `resume`") };
        assert!(args.retry_failures);
    }

    #[test]
    fn circuit_breaker_help_names_default_and_zero() {
        let text = "Trip after N consecutive fatal errors (default: 5, 0 to disable)";
        assert!(help("process").contains(text), "{}", help("process"));
    }

    #[test]
    fn flags_win_over_file_and_file_over_default() {
        let mut config = JobConfig::default();
        config.processing.circuit_breaker_threshold = 7;
        config.processing.max_retries = 4;
        config.llm.model_field = Some("model".to_owned());
        settings(&["--circuit-breaker", "3", "--retry-delay", "0.5"]).apply(&mut config);
        assert_eq!(config.processing.circuit_breaker_threshold, 3);
        assert_eq!(config.processing.retry_delay, Duration::from_millis(500));
        assert_eq!(config.processing.max_retries, 4);
        assert_eq!(config.llm.model_field.as_deref(), Some("model"));
        assert_eq!(config.processing.batch_size, 10);
    }

    #[test]
    fn streaming_is_switched_off_by_a_flag() {
        let mut config = JobConfig::default();
        config.llm.stream = true;
        settings(&[]).apply(&mut config);
        assert!(config.llm.stream);
        settings(&["--stream", "--no-stream"]).apply(&mut config);
        assert!(!config.llm.stream);
        settings(&["--no-stream", "--stream"]).apply(&mut config);
        assert!(config.llm.stream);
    }

    #[test]
    fn every_setting_has_a_flag() {
        let flags = "--api anthropic --model m --model-field f --base-url http://h --temperature 0.1 \
            --max-tokens 9 --stream --timeout 2 --mode sequential --batch-size 4 --max-retries 5 \
            --retry-delay 3 --max-wait 0 --parse-error-retries 1 --checkin-interval 6 \
            --circuit-breaker 0 --no-post-process --no-merge --include-raw";
        let mut config = JobConfig::default();
        settings(&flags.split_whitespace().collect::<Vec<_>>()).apply(&mut config);
        let changed = serde_json::to_value(&config).expect("a configuration is JSON");
        let default = serde_json::to_value(JobConfig::default()).expect("a configuration is JSON");
        for section in ["llm", "processing"] {
            for (field, value) in changed[section].as_object().expect("a section is an object") {
                assert_ne!(value, &default[section][field], "{section}.{field}");
            }
        }
    }

    #[test]
    fn invalid_time_is_refused() {
        for time in ["-1", "soon", "inf"] {
            assert!(seconds(time).is_err(), "{time}");
        }
    }
}
