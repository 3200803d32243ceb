//! Tests of the suite's modules. They are not in the modules, because a benchmark cannot run them.

#![allow(dead_code, reason = "the tests do not use all of the suite")]

mod measure;
mod memory;
mod options;
mod record;
mod statistics;
mod threads;

mod statistics_tests {
    use crate::statistics::Quartiles;

    fn quartiles(lower: f64, median: f64, upper: f64) -> Quartiles {
        Quartiles { lower, median, upper }
    }

    #[test]
    fn quartiles_of_unsorted_sample_are_its_values() {
        assert_eq!(Quartiles::of(vec![5.0, 1.0, 4.0, 2.0, 3.0]), quartiles(2.0, 3.0, 4.0));
    }

    #[test]
    fn quartiles_of_even_sample_are_interpolated() {
        assert_eq!(Quartiles::of(vec![4.0, 1.0, 3.0, 2.0]), quartiles(1.75, 2.5, 3.25));
    }

    #[test]
    fn quartiles_of_one_value_are_this_value() {
        assert_eq!(Quartiles::of(vec![7.0]), Quartiles::exact(7.0));
    }

    #[test]
    fn outliers_do_not_change_quartiles() {
        let mut sample: Vec<f64> = (0..101).map(f64::from).collect();
        let before = Quartiles::of(sample.clone());
        sample[100] = 1e9;
        assert_eq!(Quartiles::of(sample), before);
    }

    #[test]
    fn ratios_are_formed_round_by_round() {
        // The second round ran at half of the speed, which affects both variants.
        let ratios = Quartiles::of_ratios(&[30.0, 60.0, 30.0], &[10.0, 20.0, 10.0]);
        assert_eq!(ratios, Quartiles::exact(3.0));
    }

    #[test]
    fn range_has_smallest_median_and_largest_value() {
        assert_eq!(Quartiles::range_of(vec![3.0, 9.0, 1.0]), quartiles(1.0, 3.0, 9.0));
        assert_eq!(Quartiles::range_of(vec![3.0, 1.0]), quartiles(1.0, 2.0, 3.0));
    }
}

mod record_tests {
    use tower_resilience_benchmarks::Style;

    use crate::record::{Kind, Record, merge};
    use crate::statistics::Quartiles;

    fn record(row: &str, median: f64) -> Record {
        Record {
            kind: Kind::Time,
            row: row.to_owned(),
            subject: "ours".to_owned(),
            style: Some(Style::Await),
            nanos: Some(10.0 * median),
            value: Quartiles { lower: median - 0.5, median, upper: median + 0.5 },
            bare: None,
        }
    }

    fn range(smallest: f64, median: f64, largest: f64) -> Quartiles {
        Quartiles { lower: smallest, median, upper: largest }
    }

    #[test]
    fn single_run_keeps_its_quartiles() {
        assert_eq!(merge(&[vec![record("success", 2.0)]])[0].value, range(1.5, 2.0, 2.5));
    }

    #[test]
    fn runs_are_merged_by_row_to_range_of_medians() {
        let run = |success, failure| vec![record("success", success), record("failure", failure)];
        let merged = merge(&[run(2.0, 6.0), run(1.0, 5.0), run(3.0, 9.0)]);
        let [success, failure] = &merged[..] else { panic!("{} records", merged.len()) };
        assert_eq!((success.value, success.nanos), (range(1.0, 2.0, 3.0), Some(20.0)));
        assert_eq!((failure.value, failure.nanos), (range(5.0, 6.0, 9.0), Some(60.0)));
        assert_eq!((success.row.as_str(), success.bare), ("success", None));
    }

    #[test]
    fn styles_and_subjects_are_merged_apart() {
        let raw = Record { style: Some(Style::Raw), ..record("success", 1.0) };
        let peer = Record { subject: "seatbelt".to_owned(), ..record("success", 4.0) };
        let run = vec![record("success", 2.0), raw, peer];
        let values: Vec<Quartiles> = merge(&[run.clone(), run]).iter().map(|record| record.value).collect();
        assert_eq!(values, [2.0, 1.0, 4.0].map(Quartiles::exact));
    }

    #[test]
    fn failed_measurement_of_one_run_is_left_out() {
        let failed = Record { value: Quartiles::missing(), ..record("success", 0.0) };
        let merged =
            merge(&[vec![failed.clone()], vec![record("success", 2.0)], vec![record("success", 4.0)]]);
        assert_eq!(merged[0].value, range(2.0, 3.0, 4.0));
        assert!(merge(&[vec![failed.clone()], vec![failed]])[0].value.is_missing());
    }
}

mod threads_tests {
    #![expect(clippy::disallowed_methods, reason = "the threads read the real clock")]

    use std::time::{Duration, Instant};

    use tower_resilience_benchmarks::Threads;

    use crate::threads::{CHUNK, Ran, SAMPLE, ran_together, run};

    /// Returns the calls of threads that started, ended and had a core at the given milliseconds.
    fn ran(threads: &[(u64, u64, u64)]) -> Vec<Ran> {
        let now = Instant::now();
        let at = |millis| now + Duration::from_millis(millis);
        let ran = |&(start, end, running): &(u64, u64, u64)| Ran {
            start: at(start),
            end: at(end),
            running: Duration::from_millis(running),
            calls: 0,
            successes: 0,
        };
        threads.iter().map(ran).collect()
    }

    #[test]
    fn single_thread_with_core_ran_together() {
        assert!(ran_together(&ran(&[(0, 100, 100)])));
    }

    #[test]
    fn threads_with_common_interval_ran_together() {
        assert!(ran_together(&ran(&[(0, 100, 100), (5, 105, 100), (2, 101, 96)])));
    }

    #[test]
    fn threads_one_after_the_other_did_not_run_together() {
        assert!(!ran_together(&ran(&[(0, 100, 100), (100, 200, 100)])));
        assert!(!ran_together(&ran(&[(0, 100, 100), (150, 250, 100)])));
    }

    #[test]
    fn threads_that_overlap_too_little_did_not_run_together() {
        assert!(!ran_together(&ran(&[(0, 100, 100), (11, 111, 100)])));
        // The longer thread ran alone for most of its time.
        assert!(!ran_together(&ran(&[(0, 100, 100), (0, 1_000, 1_000)])));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn thread_without_core_did_not_run_together() {
        assert!(!ran_together(&ran(&[(0, 100, 100), (0, 100, 94)])));
    }

    #[test]
    fn no_thread_did_not_run_together() {
        assert!(!ran_together(&[]));
    }

    #[test]
    fn threads_that_run_make_calls_for_the_sample() {
        let threads: Threads = Box::new(|| Box::new(|calls| calls));
        for ran in run(&threads, 2) {
            assert!(ran.end - ran.start >= SAMPLE);
            assert!(ran.calls >= CHUNK);
            assert_eq!(ran.calls, ran.successes);
        }
    }
}

mod memory_tests {
    use crate::memory::parse;
    use crate::record::Kind;
    use crate::statistics::Quartiles;

    #[test]
    fn line_with_four_fields_is_result() {
        let record = parse("allocations\tbreaker, success\tours\t0.25").expect("a result");
        assert_eq!((record.kind, record.value), (Kind::Allocations, Quartiles::exact(0.25)));
        assert_eq!((record.row.as_str(), record.subject.as_str()), ("breaker, success", "ours"));
    }

    #[test]
    fn other_lines_are_no_results() {
        for line in
            ["", "bytes\trow\tours", "bytes\trow\tours\tmany", "time\trow\tours\t1", "bytes\ta\tb\t1\t2"]
        {
            assert!(parse(line).is_none(), "{line}");
        }
    }
}

mod options_tests {
    use crate::measure::Effort;
    use crate::options::{Action, Options, USAGE};

    fn parse(arguments: &[&str]) -> Result<Options, lexopt::Error> {
        Options::parse(lexopt::Parser::from_args(arguments))
    }

    #[test]
    fn no_arguments_measure_everything_once() {
        // `cargo bench` passes `--bench`.
        let options = parse(&["--bench"]).expect("the arguments are valid");
        assert!(options.action == Action::Measure && options.effort == Effort::Full && !options.ours);
        assert!(options.words.is_empty());
        assert_eq!(options.runs, 1);
        assert!(["time", "threads", "memory"].iter().all(|kind| options.includes(kind)));
    }

    #[test]
    fn options_and_words_are_read_in_any_order() {
        let options = parse(&["breaker,", "--only", "time", "--ours", "--runs=3", "await", "--quick"]);
        let options = options.expect("the arguments are valid");
        assert_eq!(options.words, ["breaker,", "await"]);
        assert_eq!(options.runs, 3);
        assert!(options.ours && options.effort == Effort::Quick);
        assert!(options.includes("time") && !options.includes("threads"));
    }

    #[test]
    fn invalid_arguments_are_errors() {
        for arguments in
            [&["--fast"][..], &["--only", "speed"], &["--only"], &["--runs", "0"], &["--runs", "x"]]
        {
            assert!(parse(arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn usage_has_all_options() {
        for option in ["--list", "--ours", "--quick", "--only", "--runs", "--report", "--help"] {
            assert!(USAGE.contains(option), "{option}");
        }
    }
}
