//! A cluster: every node has some of the 16,384 slots that keys fall into. A lane leads to each node
//! that is asked; which slot is where is learned from the nodes themselves, and when a node says that
//! a key has moved, the command follows.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::redis::cluster_routing::Slot;
use ::redis::{Cmd, Pipeline, Value};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, join_all};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::lane::Lane;
use super::{RedisError, cluster_reply as reply, command, text};
use crate::config::model::{Redis, RedisAddress};

/// Times that a command is sent on: a move that is under way needs two.
const REDIRECTS: usize = 4;
/// The nodes are not asked more often than that for who has which slot.
const PAUSE: Duration = Duration::from_secs(1);
/// Of nodes; a cluster's own bound is about as many.
const NODES: usize = 1000;

/// Who has which slot.
#[derive(Default)]
struct Map {
    nodes: Vec<Arc<Lane>>,
    slots: HashMap<Slot, Arc<Lane>, foldhash::fast::FixedState>,
}

impl Map {
    /// The lane to a node, which may be new.
    fn lane(&mut self, config: &Arc<Redis>, address: &RedisAddress) -> Arc<Lane> {
        match self.nodes.iter().find(|lane| lane.node() == Some(address)) {
            Some(lane) => lane.clone(),
            None => {
                let lane = Arc::new(Lane::new(config.clone(), Some(address.clone())));
                if self.nodes.len() < NODES {
                    self.nodes.push(lane.clone());
                }
                lane
            }
        }
    }
}

type Learning = Shared<BoxFuture<'static, Result<(), RedisError>>>;

/// The attempt to learn the map that was made last.
struct Attempt {
    since: Instant,
    /// It is over. The future itself does not know that before somebody has waited for it.
    over: Arc<AtomicBool>,
    learning: Learning,
}

/// A worker's lanes to a cluster.
pub(super) struct Cluster {
    config: Arc<Redis>,
    map: Arc<Mutex<Map>>,
    /// All who need the map wait for the same attempt.
    learning: Mutex<Option<Attempt>>,
}

thread_local!(static TURN: Cell<usize> = const { Cell::new(0) });

impl Cluster {
    /// Nothing is known yet; the addresses of the configuration are asked first.
    pub(super) fn new(config: Arc<Redis>) -> Self {
        let mut map = Map::default();
        for address in &config.url.addresses {
            map.lane(&config, address);
        }
        Self {
            config,
            map: Arc::new(Mutex::new(map)),
            learning: Mutex::new(None),
        }
    }

    /// The nodes as they are known.
    pub(super) fn nodes(&self) -> Vec<RedisAddress> {
        let map = self.map.lock();
        let known = map.nodes.iter().filter_map(|lane| lane.node().cloned());
        known.collect()
    }

    /// One command, sent to the node that has its keys. An error that a server sent is a value.
    pub(super) async fn command(&self, command: &Cmd) -> Result<Value, RedisError> {
        let lane = self.lane(slot(command)).await?;
        let outcome = lane.command(command).await;
        self.follow(command, lane, outcome).await
    }

    /// Several commands, those of one node together.
    pub(super) async fn pipeline(&self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let commands: Vec<&Cmd> = pipeline.cmd_iter().collect();
        let mut parts: Vec<(Arc<Lane>, Vec<usize>, Pipeline)> = Vec::new();
        for (place, command) in commands.iter().enumerate() {
            // A command without keys goes where the first one goes.
            let lane = match (slot(command), parts.first()) {
                (None, Some((lane, ..))) => lane.clone(),
                (slot, _) => self.lane(slot).await?,
            };
            let at = parts.iter().position(|(part, ..)| Arc::ptr_eq(part, &lane));
            let at = at.unwrap_or_else(|| {
                parts.push((lane, Vec::new(), Pipeline::new()));
                parts.len() - 1
            });
            parts[at].1.push(place);
            parts[at].2.add_command((*command).clone());
        }
        let sent = parts.iter().map(|(lane, _, part)| lane.pipeline(part));
        let outcomes = join_all(sent).await;
        let mut values = vec![Value::Nil; commands.len()];
        for ((lane, places, _), outcome) in parts.into_iter().zip(outcomes) {
            let replies = outcome.inspect_err(|error| self.note(error))?;
            for (place, value) in places.into_iter().zip(replies) {
                let followed = self.follow(commands[place], lane.clone(), Ok(value));
                values[place] = followed.await?;
            }
        }
        Ok(values)
    }

    /// A transaction, whose keys are all on one node.
    pub(super) async fn transaction(&self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let mut slots = pipeline.cmd_iter().filter_map(slot);
        let first = slots.next();
        if slots.any(|slot| Some(slot) != first) {
            return Err(RedisError::Failed(
                "CROSSSLOT the keys of a transaction have to be in one slot: give them one {tag}"
                    .to_owned(),
            ));
        }
        let mut lane = self.lane(first).await?;
        for _ in 0..REDIRECTS {
            let outcome = lane.pipeline(pipeline).await;
            let Err(error) = &outcome else {
                return outcome;
            };
            self.note(error);
            let moved = match error {
                RedisError::Failed(text) => text.strip_prefix("EXECABORT "),
                _ => None,
            };
            // Nothing of it has been carried out.
            match moved.and_then(|text| reply::redirect(text, lane.node())) {
                Some(to) if !to.ask => lane = self.moved(&to),
                _ => return outcome,
            }
        }
        Err(too_many())
    }

    /// Goes where a reply says that a key has moved to.
    async fn follow(
        &self,
        command: &Cmd,
        mut lane: Arc<Lane>,
        mut outcome: Result<Value, RedisError>,
    ) -> Result<Value, RedisError> {
        for _ in 0..REDIRECTS {
            let to = match &outcome {
                Err(error) => {
                    self.note(error);
                    return outcome;
                }
                Ok(Value::ServerError(error)) => reply::redirect(&text(error), lane.node()),
                Ok(_) => None,
            };
            let Some(to) = to else {
                return outcome;
            };
            if to.ask {
                lane = self.map.lock().lane(&self.config, &to.address);
                let mut asking = Pipeline::with_capacity(2);
                asking.cmd("ASKING");
                asking.add_command(command.clone());
                let replies = lane.pipeline(&asking).await;
                outcome = replies.map(|mut replies| replies.pop().unwrap_or(Value::Nil));
            } else {
                lane = self.moved(&to);
                outcome = lane.command(command).await;
            }
        }
        Err(too_many())
    }

    /// The slot is elsewhere, and others may be, too.
    fn moved(&self, to: &reply::Redirect) -> Arc<Lane> {
        let lane = {
            let mut map = self.map.lock();
            let lane = map.lane(&self.config, &to.address);
            if let Some(slot) = Slot::new(to.slot) {
                map.slots.insert(slot, lane.clone());
            }
            lane
        };
        let _later = self.learn();
        lane
    }

    /// A node that is away may have handed over its slots.
    fn note(&self, error: &RedisError) {
        if error.counts() || *error == RedisError::BreakerOpen {
            let _later = self.learn();
        }
    }

    /// Where a slot is; a command without keys goes to each node in turn.
    async fn lane(&self, slot: Option<Slot>) -> Result<Arc<Lane>, RedisError> {
        if let Some(lane) = self.known(slot) {
            return Ok(lane);
        }
        self.learn().await?;
        self.known(slot).ok_or_else(|| {
            RedisError::Failed("CLUSTERDOWN no node of the cluster has the key's slot".to_owned())
        })
    }

    fn known(&self, slot: Option<Slot>) -> Option<Arc<Lane>> {
        let map = self.map.lock();
        match slot {
            Some(slot) => map.slots.get(&slot).cloned(),
            // Before anything is known, what is asked is a node that the configuration names.
            None => {
                let turn = TURN.get();
                TURN.set(turn.wrapping_add(1));
                map.nodes.get(turn % map.nodes.len().max(1)).cloned()
            }
        }
    }

    /// Asks the nodes who has which slot; what was asked just now is not asked again.
    fn learn(&self) -> Learning {
        let mut last = self.learning.lock();
        if let Some(attempt) = &*last
            && (!attempt.over.load(Ordering::Relaxed) || attempt.since.elapsed() < PAUSE)
        {
            return attempt.learning.clone();
        }
        let over = Arc::new(AtomicBool::new(false));
        let (done, outcome) = tokio::sync::oneshot::channel();
        let (config, map, ended) = (self.config.clone(), self.map.clone(), over.clone());
        tokio::task::spawn_local(async move {
            let learned = ask_all(&config, &map).await;
            ended.store(true, Ordering::Relaxed);
            // Nobody waits any more when the client was replaced.
            let _heard = done.send(learned).is_ok();
        });
        let learning = outcome
            .map(|outcome| {
                outcome.unwrap_or_else(|_| {
                    Err(RedisError::Unavailable("the worker is ending".to_owned()))
                })
            })
            .boxed()
            .shared();
        *last = Some(Attempt {
            since: Instant::now(),
            over,
            learning: learning.clone(),
        });
        learning
    }
}

fn too_many() -> RedisError {
    RedisError::Failed("MOVED the cluster sends the command from node to node".to_owned())
}

/// The slot of a command's first key; a command across slots is refused by the node itself.
fn slot(command: &Cmd) -> Option<Slot> {
    let arguments: Vec<&[u8]> = command
        .args_iter()
        .filter_map(|argument| match argument {
            ::redis::Arg::Simple(bytes) => Some(bytes),
            _ => None,
        })
        .collect();
    let keys = command::keys(&command::name(&arguments)?, &arguments)?;
    keys.first().map(Slot::for_key)
}

/// Asks one node after the other until one says who has which slot.
async fn ask_all(config: &Arc<Redis>, map: &Mutex<Map>) -> Result<(), RedisError> {
    let mut lanes = map.lock().nodes.clone();
    for address in &config.url.addresses {
        if !lanes.iter().any(|lane| lane.node() == Some(address)) {
            lanes.push(Arc::new(Lane::new(config.clone(), Some(address.clone()))));
        }
    }
    let mut last = RedisError::Unavailable("no node of the cluster answers".to_owned());
    let mut question = ::redis::cmd("CLUSTER");
    question.arg("SLOTS");
    for lane in lanes {
        match lane.command(&question).await {
            Ok(Value::ServerError(error)) => last = RedisError::Failed(text(&error)),
            Ok(value) => {
                let ranges = reply::ranges(&value, lane.node());
                if ranges.is_empty() {
                    last = RedisError::Failed("CLUSTERDOWN the cluster has no slots".to_owned());
                    continue;
                }
                draw(config, &mut map.lock(), &ranges);
                return Ok(());
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Draws the map anew; lanes to nodes that have no slots any more are closed.
fn draw(config: &Arc<Redis>, map: &mut Map, ranges: &[reply::Range]) {
    let mut new = Map {
        nodes: Vec::new(),
        slots: HashMap::default(),
    };
    for range in ranges.iter().take(usize::from(u16::MAX)) {
        let lane = map.lane(config, &range.master);
        if new.nodes.len() < NODES && !new.nodes.iter().any(|known| Arc::ptr_eq(known, &lane)) {
            new.nodes.push(lane.clone());
        }
        for slot in (range.first..=range.last).filter_map(Slot::new) {
            new.slots.insert(slot, lane.clone());
        }
    }
    *map = new;
}
