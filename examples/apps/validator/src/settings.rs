//! The configuration, with the flags applied.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use validator::config::{Config, ValidatorConfig};
use validator::external::{ExternalConfig, PROMETHEUS, QUESTDB};
use validator::orchestrator::ValidationOrchestrator;
use validator::timeouts::TIMEOUTS;

use crate::cli::{RunArgs, ServiceArgs};

/// Reads the configuration, and applies the flags.
pub(crate) fn load(args: &RunArgs) -> Result<Config> {
    let mut config = match &args.config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    config
        .validators
        .extend(args.services.tools.iter().map(|(dimension, tool)| tool_validator(dimension, tool)));
    check_timeouts(&config)?;
    config.timeouts.extend(args.timeouts.iter().cloned());
    if let Some(jobs) = args.jobs {
        config.concurrency = jobs;
    }
    apply_services(&mut config.external, &args.services)?;
    if args.services.mcp.is_some() {
        let has_tool = config.validators.iter().any(|validator| validator.tool.is_some());
        ensure!(has_tool, "no validator calls a tool of the MCP server; add `--tool` or remove `--mcp`");
    }
    check_dir(&args.dir, &config)?;
    Ok(config)
}

fn apply_services(external: &mut ExternalConfig, args: &ServiceArgs) -> Result<()> {
    let (mut questdb, mut prometheus) = (args.questdb.clone(), args.prometheus.clone());
    for address in &args.push {
        let (service, target) =
            if address.contains("://") { (PROMETHEUS, &mut prometheus) } else { (QUESTDB, &mut questdb) };
        if target.replace(address.clone()).is_some() {
            bail!("`--push` has two addresses of `{service}`; remove one");
        }
    }
    external.questdb = questdb.or(external.questdb.take());
    external.prometheus = prometheus.or(external.prometheus.take());
    external.mcp = args.mcp.clone().or(external.mcp.take());
    Ok(())
}

fn tool_validator(dimension: &str, tool: &str) -> ValidatorConfig {
    ValidatorConfig {
        dimension: dimension.to_owned(),
        tier: 1,
        command: None,
        success_exit_codes: None,
        tool: Some(tool.to_owned()),
        arguments: None,
    }
}

/// Checks that no name of a dimension in `timeouts` is misspelled.
fn check_timeouts(config: &Config) -> Result<()> {
    for dimension in config.timeouts.keys() {
        let is_known = TIMEOUTS.iter().any(|(known, _)| known == dimension)
            || config.validators.iter().any(|validator| validator.dimension == *dimension);
        ensure!(
            is_known,
            "`timeouts` has the dimension `{dimension}`, which no validator has; correct or remove it"
        );
    }
    Ok(())
}

/// Checks that the folder exists, and that it is a Rust package if no validator is configured.
fn check_dir(dir: &Path, config: &Config) -> Result<()> {
    let shown = dir.display();
    let path =
        dir.canonicalize().with_context(|| format!("folder `{shown}` is not found; check the path"))?;
    ensure!(path.is_dir(), "`{shown}` is not a folder; name the folder of a project");
    let is_rust = path.ancestors().any(|folder| folder.join("Cargo.toml").is_file());
    ensure!(
        is_rust || !config.validators.is_empty(),
        "folder `{shown}` has no `Cargo.toml`; add `--config` with the validators of the project"
    );
    Ok(())
}

/// Keeps the validators that `--only` selects.
///
/// # Errors
///
/// Returns an error if `--only` or `--timeout` names a dimension that no validator has.
pub(crate) fn select(orchestrator: &mut ValidationOrchestrator, args: &RunArgs) -> Result<()> {
    for dimension in &args.only {
        check_dimension(orchestrator, "--only", dimension)?;
    }
    for (dimension, _) in &args.timeouts {
        check_dimension(orchestrator, "--timeout", dimension)?;
    }
    if !args.only.is_empty() {
        orchestrator.retain(|validator| args.only.iter().any(|only| only == validator.dimension()));
    }
    Ok(())
}

fn check_dimension(orchestrator: &ValidationOrchestrator, flag: &str, dimension: &str) -> Result<()> {
    let mut known: Vec<_> = orchestrator.validators().iter().map(|validator| validator.dimension()).collect();
    if known.contains(&dimension) {
        return Ok(());
    }
    known.sort_unstable();
    known.dedup();
    bail!("no validator has the dimension `{dimension}` of `{flag}`; use one of: {}", known.join(", "))
}
