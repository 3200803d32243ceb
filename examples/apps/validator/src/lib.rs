//! Runs the checks of a project.
