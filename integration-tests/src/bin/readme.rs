//! The program of the README. The test of the README runs it.

include!(concat!(env!("OUT_DIR"), "/readme.rs"));
