//! `redis`: commands to the servers of the configuration, within what `allow.redis` covers.

use std::future::Future;
use std::sync::Arc;

use sha1::{Digest as _, Sha1};
use wasmtime::component::Resource;

use super::bindings::phasor::plugin::redis as wit;
use super::operation::{Outcome, Task, Work, wrong_kind};
use super::{HostState, Operation, enter};
use crate::observe::error_log::{self, Context, Level};
use crate::redis::{self, Client, Cmd, Message, Pipeline, RedisError, Value, command};

mod value;

/// A subscription that a guest has opened.
pub type Subscription = Arc<redis::Subscription>;

/// How an operation of this interface ended.
#[derive(Debug)]
pub enum RedisOutcome {
    /// Of a command or a script.
    Reply(Result<Value, RedisError>),
    /// Of several commands.
    Replies(Result<Vec<Value>, RedisError>),
    /// Of a subscription's beginning.
    Subscribed(Result<Subscription, RedisError>),
    /// Of a wait for a message.
    Message(Result<Message, RedisError>),
    /// Refused before anything was sent.
    Refused(Refusal),
}

/// Why nothing was sent.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// No such name.
    Unknown,
    /// `allow.redis` does not cover it.
    Refused(String),
    /// Not on a shared connection.
    Invalid(String),
}

type Arguments = Vec<Vec<u8>>;

fn error(error: RedisError) -> wit::RedisError {
    match error {
        RedisError::Timeout => wit::RedisError::Timeout,
        RedisError::Unavailable(text) => wit::RedisError::Unavailable(text),
        RedisError::BreakerOpen => wit::RedisError::BreakerOpen,
        RedisError::Busy => wit::RedisError::Busy,
        RedisError::TooLarge(limit) => wit::RedisError::TooLarge(limit as u64),
        RedisError::Invalid(text) => wit::RedisError::Invalid(text),
        RedisError::Failed(text) => wit::RedisError::Failed(text),
    }
}

fn refusal(refusal: Refusal) -> wit::RedisError {
    match refusal {
        Refusal::Unknown => wit::RedisError::UnknownRedis,
        Refusal::Refused(text) => wit::RedisError::Refused(text),
        Refusal::Invalid(text) => wit::RedisError::Invalid(text),
    }
}

fn cmd(arguments: &[Vec<u8>]) -> Cmd {
    let bytes = arguments.iter().map(Vec::len).sum();
    let mut command = Cmd::with_capacity(arguments.len(), bytes);
    for argument in arguments {
        command.arg(&argument[..]);
    }
    command
}

fn pipe(commands: &[Arguments], atomic: bool) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(commands.len());
    if atomic {
        pipeline.atomic();
    }
    for command in commands {
        pipeline.add_command(cmd(command));
    }
    pipeline
}

/// EVALSHA, and EVAL when the server does not have the script.
async fn run_script(
    client: Arc<Client>,
    script: Vec<u8>,
    rest: Arguments,
) -> Result<Value, RedisError> {
    use std::fmt::Write as _;
    let mut digest = String::with_capacity(40);
    for byte in Sha1::digest(&script) {
        let _infallible = write!(digest, "{byte:02x}").is_ok();
    }
    let mut first = vec![b"EVALSHA".to_vec(), digest.into_bytes()];
    first.extend_from_slice(&rest);
    match client.clone().command(cmd(&first)).await {
        Err(RedisError::Failed(text)) if text.starts_with("NOSCRIPT") => {
            let mut second = vec![b"EVAL".to_vec(), script];
            second.extend(rest);
            client.command(cmd(&second)).await
        }
        outcome => outcome,
    }
}

impl HostState {
    fn redis_client(&self, name: &str) -> Result<Arc<Client>, Refusal> {
        let config = self.plugin.redis.iter().find(|redis| redis.name == name);
        config.map(redis::client).ok_or(Refusal::Unknown)
    }

    /// Whether the plugin may do that; a refusal is logged.
    fn redis_allowed(
        &self,
        redis: &str,
        name: &str,
        keys: Option<&[&[u8]]>,
    ) -> Result<(), Refusal> {
        if self
            .plugin
            .allow
            .redis
            .allows(|rule| rule.fits(redis, name, keys))
        {
            return Ok(());
        }
        let keys: Vec<_> = keys
            .unwrap_or_default()
            .iter()
            .map(|key| String::from_utf8_lossy(key))
            .collect();
        let target = format!("{redis}: {name} {}", keys.join(" "));
        let target = target.trim_end();
        self.refuse("redis", target);
        Err(Refusal::Refused(format!(
            "allow.redis does not cover `{target}`"
        )))
    }

    /// Says in the log what a plugin may not do.
    pub(super) fn refuse(&self, kind: &str, target: &str) {
        let context = Context {
            plugin: Some(&self.plugin.name),
            phase: Some(self.phase.name()),
            ..Context::default()
        };
        let message = format!("refused: allow.{kind} does not cover `{target}`");
        if self.exchange == crate::exchange::NO_EXCHANGE {
            error_log::write(Level::Warn, &context, message);
        } else {
            crate::exchange::log(self.exchange, Level::Warn, context, &message);
        }
    }

    fn redis_check(&self, redis: &str, arguments: &[Vec<u8>]) -> Result<(), Refusal> {
        let Some(name) = command::name(arguments) else {
            return Err(Refusal::Invalid("a command has a name".to_owned()));
        };
        if let Some(text) = command::spoils(&name, arguments) {
            return Err(Refusal::Invalid(text));
        }
        let granted = &self.plugin.allow.redis;
        if granted.allows(|rule| rule.fits_any_keys(redis, &name)) {
            return Ok(());
        }
        let keys = command::keys(&name, arguments);
        self.redis_allowed(redis, &name, keys.as_deref())
    }

    fn redis_command(&self, redis: &str, arguments: &[Vec<u8>]) -> Result<Task, Refusal> {
        let client = self.redis_client(redis)?;
        self.redis_check(redis, arguments)?;
        let command = cmd(arguments);
        Ok(task(async move {
            RedisOutcome::Reply(client.command(command).await)
        }))
    }

    fn redis_pipeline(
        &self,
        redis: &str,
        commands: &[Arguments],
        atomic: bool,
    ) -> Result<Task, Refusal> {
        let client = self.redis_client(redis)?;
        if commands.is_empty() {
            return Err(Refusal::Invalid("no command was given".to_owned()));
        }
        for command in commands {
            self.redis_check(redis, command)?;
        }
        let pipeline = pipe(commands, atomic);
        Ok(task(async move {
            RedisOutcome::Replies(client.pipeline(pipeline).await)
        }))
    }

    fn redis_eval(
        &self,
        redis: &str,
        script: Vec<u8>,
        keys: Arguments,
        arguments: Arguments,
    ) -> Result<Task, Refusal> {
        let client = self.redis_client(redis)?;
        let borrowed: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        self.redis_allowed(redis, "EVAL", Some(&borrowed))?;
        let mut rest = vec![keys.len().to_string().into_bytes()];
        rest.extend(keys);
        rest.extend(arguments);
        Ok(task(async move {
            RedisOutcome::Reply(run_script(client, script, rest).await)
        }))
    }

    fn redis_subscribe(
        &self,
        redis: &str,
        channels: Arguments,
        patterns: Arguments,
    ) -> Result<Task, Refusal> {
        let client = self.redis_client(redis)?;
        for (name, list) in [("SUBSCRIBE", &channels), ("PSUBSCRIBE", &patterns)] {
            if !list.is_empty() {
                let keys: Vec<&[u8]> = list.iter().map(Vec::as_slice).collect();
                self.redis_allowed(redis, name, Some(&keys))?;
            }
        }
        Ok(task(async move {
            let opened = redis::Subscription::open(client, channels, patterns).await;
            RedisOutcome::Subscribed(opened.map(Arc::new))
        }))
    }

    fn redis_next(&mut self, of: &Resource<Subscription>) -> wasmtime::Result<Task> {
        let subscription = self.table.get(of)?.clone();
        Ok(task(async move {
            let next = std::future::poll_fn(|cx| subscription.poll_next(cx)).await;
            RedisOutcome::Message(next)
        }))
    }

    fn redis_begin(
        &mut self,
        begun: Result<Task, Refusal>,
    ) -> wasmtime::Result<Resource<Operation>> {
        self.begin(match begun {
            Ok(task) => Work::Task(task),
            Err(refusal) => Work::Done(Outcome::Redis(RedisOutcome::Refused(refusal))),
        })
    }
}

fn task(work: impl Future<Output = RedisOutcome> + Send + 'static) -> Task {
    Box::pin(async move { Outcome::Redis(work.await) })
}

type Answer<T> = wasmtime::Result<Result<T, wit::RedisError>>;

fn reply(outcome: Outcome, function: &str) -> Answer<wit::Reply> {
    match outcome {
        Outcome::Redis(RedisOutcome::Reply(reply)) => Ok(reply.map(value::reply).map_err(error)),
        Outcome::Redis(RedisOutcome::Refused(why)) => Ok(Err(refusal(why))),
        _ => Err(wrong_kind(function)),
    }
}

fn replies(outcome: Outcome, function: &str) -> Answer<Vec<wit::Reply>> {
    match outcome {
        Outcome::Redis(RedisOutcome::Replies(replies)) => Ok(replies
            .map(|replies| replies.into_iter().map(value::reply).collect())
            .map_err(error)),
        Outcome::Redis(RedisOutcome::Refused(why)) => Ok(Err(refusal(why))),
        _ => Err(wrong_kind(function)),
    }
}

fn message(outcome: Outcome, function: &str) -> Answer<wit::Message> {
    match outcome {
        Outcome::Redis(RedisOutcome::Message(message)) => Ok(message
            .map(|message| wit::Message {
                channel: message.channel,
                pattern: message.pattern,
                payload: message.payload,
            })
            .map_err(error)),
        _ => Err(wrong_kind(function)),
    }
}

/// What a reply takes in the guest's memory, a bit less than that.
fn weight(reply: &wit::Reply) -> usize {
    let one = |value: &wit::Value| match value {
        wit::Value::Bytes(bytes) => bytes.len(),
        wit::Value::Status(text) | wit::Value::Failed(text) => text.len(),
        _ => 0,
    };
    match reply {
        wit::Reply::Single(value) => one(value),
        wit::Reply::Nested(values) => {
            values.len() * size_of::<wit::Value>() + values.iter().map(one).sum::<usize>()
        }
    }
}

fn at_most<T>(
    most: usize,
    answer: Result<T, wit::RedisError>,
    weight: impl FnOnce(&T) -> usize,
) -> Result<T, wit::RedisError> {
    answer.and_then(|answer| match weight(&answer) > most {
        true => Err(wit::RedisError::TooLarge(most as u64)),
        false => Ok(answer),
    })
}

impl HostState {
    fn subscribed(&mut self, outcome: Outcome, function: &str) -> Answer<Resource<Subscription>> {
        match outcome {
            Outcome::Redis(RedisOutcome::Subscribed(Ok(subscription))) => {
                Ok(Ok(self.table.push(subscription)?))
            }
            Outcome::Redis(RedisOutcome::Subscribed(Err(why))) => Ok(Err(error(why))),
            Outcome::Redis(RedisOutcome::Refused(why)) => Ok(Err(refusal(why))),
            _ => Err(wrong_kind(function)),
        }
    }
}

impl wit::Host for HostState {
    async fn command(&mut self, redis: String, arguments: Arguments) -> Answer<wit::Reply> {
        enter!(self, "redis.command");
        match self.redis_command(&redis, &arguments) {
            Ok(task) => reply(task.await, "redis.command"),
            Err(why) => Ok(Err(refusal(why))),
        }
    }

    fn begin_command(
        &mut self,
        redis: String,
        arguments: Arguments,
    ) -> wasmtime::Result<Resource<Operation>> {
        enter!(self, "redis.begin-command");
        let begun = self.redis_command(&redis, &arguments);
        self.redis_begin(begun)
    }

    async fn end_command(&mut self, op: Resource<Operation>) -> Answer<wit::Reply> {
        enter!(self, "redis.end-command");
        let answer = reply(self.finish(op).await?, "redis.end-command")?;
        Ok(at_most(self.most_at_once(), answer, weight))
    }

    async fn pipeline(
        &mut self,
        redis: String,
        commands: Vec<Arguments>,
    ) -> Answer<Vec<wit::Reply>> {
        enter!(self, "redis.pipeline");
        match self.redis_pipeline(&redis, &commands, false) {
            Ok(task) => replies(task.await, "redis.pipeline"),
            Err(why) => Ok(Err(refusal(why))),
        }
    }

    fn begin_pipeline(
        &mut self,
        redis: String,
        commands: Vec<Arguments>,
    ) -> wasmtime::Result<Resource<Operation>> {
        enter!(self, "redis.begin-pipeline");
        let begun = self.redis_pipeline(&redis, &commands, false);
        self.redis_begin(begun)
    }

    async fn end_pipeline(&mut self, op: Resource<Operation>) -> Answer<Vec<wit::Reply>> {
        enter!(self, "redis.end-pipeline");
        let answer = replies(self.finish(op).await?, "redis.end-pipeline")?;
        let sum = |replies: &Vec<wit::Reply>| replies.iter().map(weight).sum();
        Ok(at_most(self.most_at_once(), answer, sum))
    }

    async fn transaction(
        &mut self,
        redis: String,
        commands: Vec<Arguments>,
    ) -> Answer<Vec<wit::Reply>> {
        enter!(self, "redis.transaction");
        match self.redis_pipeline(&redis, &commands, true) {
            Ok(task) => replies(task.await, "redis.transaction"),
            Err(why) => Ok(Err(refusal(why))),
        }
    }

    fn begin_transaction(
        &mut self,
        redis: String,
        commands: Vec<Arguments>,
    ) -> wasmtime::Result<Resource<Operation>> {
        enter!(self, "redis.begin-transaction");
        let begun = self.redis_pipeline(&redis, &commands, true);
        self.redis_begin(begun)
    }

    async fn eval(
        &mut self,
        redis: String,
        script: Vec<u8>,
        keys: Arguments,
        arguments: Arguments,
    ) -> Answer<wit::Reply> {
        enter!(self, "redis.eval");
        match self.redis_eval(&redis, script, keys, arguments) {
            Ok(task) => reply(task.await, "redis.eval"),
            Err(why) => Ok(Err(refusal(why))),
        }
    }

    fn begin_eval(
        &mut self,
        redis: String,
        script: Vec<u8>,
        keys: Arguments,
        arguments: Arguments,
    ) -> wasmtime::Result<Resource<Operation>> {
        enter!(self, "redis.begin-eval");
        let begun = self.redis_eval(&redis, script, keys, arguments);
        self.redis_begin(begun)
    }
}

impl wit::HostSubscription for HostState {
    async fn subscribe(
        &mut self,
        redis: String,
        channels: Arguments,
        patterns: Arguments,
    ) -> Answer<Resource<Subscription>> {
        enter!(self, "redis.subscription");
        match self.redis_subscribe(&redis, channels, patterns) {
            Ok(task) => {
                let outcome = task.await;
                self.subscribed(outcome, "redis.subscription.subscribe")
            }
            Err(why) => Ok(Err(refusal(why))),
        }
    }

    fn begin_subscribe(
        &mut self,
        redis: String,
        channels: Arguments,
        patterns: Arguments,
    ) -> wasmtime::Result<Resource<Operation>> {
        enter!(self, "redis.subscription");
        let begun = self.redis_subscribe(&redis, channels, patterns);
        self.redis_begin(begun)
    }

    async fn end_subscribe(&mut self, op: Resource<Operation>) -> Answer<Resource<Subscription>> {
        enter!(self, "redis.subscription");
        let outcome = self.finish(op).await?;
        self.subscribed(outcome, "redis.subscription.end-subscribe")
    }

    async fn next(&mut self, of: Resource<Subscription>) -> Answer<wit::Message> {
        enter!(self, "redis.subscription");
        let task = self.redis_next(&of)?;
        message(task.await, "redis.subscription.next")
    }

    fn begin_next(&mut self, of: Resource<Subscription>) -> wasmtime::Result<Resource<Operation>> {
        enter!(self, "redis.subscription");
        let task = self.redis_next(&of)?;
        self.begin(Work::Task(task))
    }

    async fn end_next(&mut self, op: Resource<Operation>) -> Answer<wit::Message> {
        enter!(self, "redis.subscription");
        message(self.finish(op).await?, "redis.subscription.end-next")
    }

    fn drop(&mut self, of: Resource<Subscription>) -> wasmtime::Result<()> {
        self.table.delete(of)?;
        Ok(())
    }
}
