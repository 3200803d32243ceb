//! The styles of requests. The runs of a campaign alternate among them.

use test_servers::Llm;

/// How the requests of a run ask for replies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    pub(crate) api: &'static str,
    pub(crate) is_streamed: bool,
}

pub(crate) const STYLES: [Style; 4] = [
    Style { api: "openai", is_streamed: false },
    Style { api: "anthropic", is_streamed: true },
    Style { api: "openai", is_streamed: true },
    Style { api: "anthropic", is_streamed: false },
];

impl Style {
    /// Returns the flags for `process` and `resume`.
    pub(crate) fn flags(self, llm: &Llm) -> [String; 5] {
        let base_url = format!("{}{}", llm.url(), self.base_path());
        let stream = if self.is_streamed { "--stream" } else { "--no-stream" };
        ["--api", self.api, "--base-url", &base_url, stream].map(str::to_owned)
    }

    /// Returns the number of requests in this style that the API received.
    pub(crate) fn requests(self, llm: &Llm) -> usize {
        let requests = llm.http().requests();
        let is_in_style = |path: &str, body: &[u8]| {
            let body: serde_json::Value = serde_json::from_slice(body).unwrap();
            path == self.path() && body["stream"].as_bool().unwrap_or(false) == self.is_streamed
        };
        requests.iter().filter(|request| is_in_style(&request.path, &request.body)).count()
    }

    fn path(self) -> &'static str {
        match self.api {
            "openai" => "/v1/chat/completions",
            _ => "/v1/messages",
        }
    }

    /// Returns the part of the path that belongs to the base URL.
    fn base_path(self) -> &'static str {
        match self.api {
            "openai" => "/v1",
            _ => "",
        }
    }
}
