//! Starts a job.

use std::fs;
use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::job::Job;
use super::run::run_job;
use super::{CommandError, absolute_path, client, output, resume_command};
use crate::checkpoint::{Checkpoint, Counts, JobError, JobFiles, JobLock};
use crate::cli::ProcessArgs;
use crate::config::JobConfig;
use crate::input::Input;
use crate::prompt::PromptTemplate;

pub(super) async fn process(args: ProcessArgs, interrupted: CancellationToken) -> Result<u8, CommandError> {
    let mut config = match &args.config {
        Some(path) => JobConfig::read(path)?,
        None => JobConfig::default(),
    };
    args.settings.apply(&mut config);
    config.validate()?;
    let client = client(&args.common, &config)?;
    let prompt = read_prompt(&args.prompt)?;
    let template = PromptTemplate::new(&prompt)?;
    let input = Input::read(&args.input)?;
    input.check_fields(&template)?;
    output::check_is_not_input(&args.output, &args.input)?;

    let (files, lock) = reserve(&args)?;
    let checkpoint = Checkpoint {
        job_id: files.job_id().to_owned(),
        // The job may be resumed from another folder.
        input: absolute_path(&args.input)?,
        fingerprint: input.fingerprint,
        output: absolute_path(&args.output)?,
        prompt,
        config,
        counts: Counts { total: input.items.len(), ..Counts::default() },
    };
    let mut job = Job::open(&args.common, files, lock, checkpoint, input.items)?;
    let pending = job.pending(false);
    job.report_start(&pending);
    run_job(job, client, template, pending, interrupted).await
}

/// Returns the text of the argument, or of the file that it names.
fn read_prompt(argument: &str) -> Result<String, CommandError> {
    let Some(path) = argument.strip_prefix('@') else { return Ok(argument.to_owned()) };
    fs::read_to_string(path)
        .map_err(|error| CommandError::usage(format!("the prompt `{path}` cannot be read: {error}")))
}

/// Locks a new job.
fn reserve(args: &ProcessArgs) -> Result<(JobFiles, JobLock), CommandError> {
    let folder = &args.common.checkpoint_dir;
    let Some(job_id) = &args.job_id else { return reserve_number(folder, &args.input) };
    let files = JobFiles::new(folder, job_id)?;
    files.create_folder()?;
    let lock = JobLock::acquire(&files)?;
    if is_used(&files) {
        let command = resume_command(&files, folder);
        let text =
            format!("job `{job_id}` exists already; continue it with `{command}`, or give another --job-id");
        return Err(CommandError::usage(text));
    }
    Ok((files, lock))
}

/// Locks the first unused job that is named after the input.
fn reserve_number(folder: &Path, input: &Path) -> Result<(JobFiles, JobLock), CommandError> {
    let name = job_name(input);
    let mut number = 0;
    loop {
        number += 1;
        let files = JobFiles::new(folder, &format!("{name}-{number}"))?;
        if is_used(&files) {
            continue;
        }
        files.create_folder()?;
        match JobLock::acquire(&files) {
            // Another process may have used the name and ended meanwhile.
            Ok(lock) if !is_used(&files) => return Ok((files, lock)),
            Ok(_) | Err(JobError::Locked { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Returns the name of the input as a part of a job's name. Other characters become `-`.
fn job_name(input: &Path) -> String {
    let stem = input.file_stem().unwrap_or_default().to_string_lossy();
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let name: String = stem.chars().take(80).map(|c| if is_allowed(c) { c } else { '-' }).collect();
    match name.trim_start_matches('-') {
        "" => "job".to_owned(),
        name => name.to_owned(),
    }
}

/// Returns whether a job has been started. Its checkpoint is written before its first result.
fn is_used(files: &JobFiles) -> bool {
    files.checkpoint().exists() || files.results().metadata().is_ok_and(|results| results.len() > 0)
}
