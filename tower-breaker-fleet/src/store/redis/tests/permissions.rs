//! Users, passwords and access control lists.

use test_servers::Redis;

use super::super::RedisStore;
use super::super::error::ACL_RULES;
use super::{heartbeat, operation, refusal};
use crate::store::{Action, Session, StoreError, StoreErrorKind};

/// Returns the rules that the documentation of [`RedisStore`] names.
fn documented_rules() -> String {
    let lines = include_str!("../mod.rs").lines().map(|line| line.trim_start_matches("///").trim());
    let rules = lines.skip_while(|line| !line.starts_with("ACL SETUSER")).take_while(|line| *line != "```");
    let rules: Vec<_> = rules.flat_map(str::split_whitespace).skip(5).collect();
    rules.join(" ")
}

#[test]
fn documented_rules_are_those_of_the_tests() {
    let rules: Vec<_> = ACL_RULES.split_whitespace().collect();
    assert_eq!(documented_rules(), rules.join(" "));
}

#[tokio::test]
async fn wrong_password_is_refused_without_the_password() {
    let server = Redis::start_with(&["requirepass right"]);
    for url in [
        server.url(),
        format!("{}?pass=wr0ng", server.url()),
        format!("{}?user=app&pass=wr0ng", server.url()),
    ] {
        let error = refusal(&RedisStore::open(&url).unwrap()).await;
        let user = if url.contains("app") { "app" } else { "default" };
        assert_refused(&error, &format!("wrong name or password of user `{user}`; check the URL"));
        assert!(!format!("{error:?}").contains("wr0ng"), "{error:?}");
    }
}

#[tokio::test]
async fn missing_permission_is_named_with_its_rule() {
    let all = "allow it with `ACL SETUSER app ~tb1:* &tb1:* +ping";
    for (rules, advice) in [
        ("~tb1:* &tb1:* -subscribe", "allow it with `ACL SETUSER app +subscribe`"),
        ("~tb1:* &tb1:* -evalsha", "allow it with `ACL SETUSER app +evalsha`"),
        ("~tb1:* &tb1:* -hmget", all),
        ("~other:* &tb1:*", "allow it with `ACL SETUSER app ~tb1:*`"),
        ("~tb1:* &tb1:* -publish", all),
        ("~tb1:* &other:*", "allow it with `ACL SETUSER app &tb1:*`"),
    ] {
        let server = Redis::start();
        server.command(&format!("ACL SETUSER app on >secret +@all {rules}"));
        let url = format!("{}?user=app&pass=secret", server.url());
        assert_refused(&first_error(&url, rules).await, advice);
    }
}

async fn first_error(url: &str, rules: &str) -> StoreError {
    match RedisStore::open(url).unwrap().open_session("orders").await {
        Ok(mut session) => {
            let result = session.sync(&heartbeat(None)).await;
            result.and(session.operate(&operation(Action::Trip)).await.map(drop)).expect_err(rules)
        }
        Err(error) => error,
    }
}

fn assert_refused(error: &StoreError, part: &str) {
    assert_eq!(error.kind, StoreErrorKind::Refused, "{error:?}");
    assert!(error.message.contains(part), "{error:?}");
    assert!(!error.message.contains("secret"), "{error:?}");
}

#[tokio::test]
async fn special_characters_of_password_are_decoded() {
    let server = Redis::start_tcp();
    let password = "p@s:s/w?o#r%d+&=[é]";
    server.command(&format!("ACL SETUSER fleet on >{password} {ACL_RULES}"));
    let encoded = password.bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02x}"));
    for url in [
        format!("redis://fleet:{encoded}@{}", server.address()),
        format!("{}?user=fleet&pass={encoded}", server.url()),
        // Only these have a meaning in a query.
        format!("{}?user=fleet&pass=p@s:s/w?o%23r%25d%2b%26=[é]", server.url()),
    ] {
        let store = RedisStore::open(&url).unwrap();
        store.open_session("orders").await.unwrap_or_else(|error| panic!("{url}: {error:?}"));
        assert!(!format!("{store:?}").contains("s:s"), "{store:?}");
    }
}
