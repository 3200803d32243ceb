//! Continues a job.

use tokio_util::sync::CancellationToken;

use super::job::Job;
use super::run::{End, run_job};
use super::{CommandError, absolute_path, client, output};
use crate::checkpoint::{Checkpoint, JobFiles, JobLock};
use crate::cli::ResumeArgs;
use crate::input::Input;
use crate::prompt::PromptTemplate;

pub(super) async fn resume(args: ResumeArgs, interrupted: CancellationToken) -> Result<u8, CommandError> {
    let files = JobFiles::new(&args.common.checkpoint_dir, &args.job_id)?;
    let mut checkpoint = Checkpoint::read(&files)?;
    let lock = JobLock::acquire(&files)?;
    args.settings.apply(&mut checkpoint.config);
    if let Some(output) = &args.output {
        checkpoint.output = absolute_path(output)?;
    }
    checkpoint.config.validate()?;
    let template = PromptTemplate::new(&checkpoint.prompt)?;
    let input = Input::read(&checkpoint.input)?;
    if input.fingerprint != checkpoint.fingerprint {
        let path = checkpoint.input.display();
        let text = format!(
            "input `{path}` has changed since job `{}` was started; restore the file, or start a new job",
            args.job_id
        );
        return Err(CommandError::usage(text));
    }
    input.check_fields(&template)?;
    output::check_is_not_input(&checkpoint.output, &checkpoint.input)?;

    let config = checkpoint.config.clone();
    let mut job = Job::open(&args.common, files, lock, checkpoint, input.items)?;
    let pending = job.pending(args.retry_failures);
    if args.retry_failures {
        let failed = job.counts().failed;
        job.console.line(format_args!("Found {failed} failed items to retry"));
    }
    job.report_start(&pending);
    if pending.is_empty() {
        return job.finish(End::Completed);
    }
    let client = client(&args.common, &config)?;
    run_job(job, client, template, pending, interrupted).await
}
