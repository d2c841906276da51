//! A route's plan: the steps that its configuration comes to, compiled once, flat, so that the loop
//! decides nothing that was known when the generation was built.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use crate::config::template::Template;
use crate::phase::Phase;
use crate::response::files::Root;

/// A plugin's place in the generation.
pub type PluginIndex = usize;

/// All that a request of one route goes through.
#[derive(Default)]
pub struct Plan {
    /// nginx has no word for it; `$route` and the log name it.
    pub route: Arc<str>,
    /// From `set` to `content`, in order.
    pub steps: Vec<Step>,
    /// Run when the head is complete.
    pub header_filters: Vec<Filter>,
    /// Run on each piece of the body.
    pub body_filters: Vec<Filter>,
    /// Run when the answer has left.
    pub log: Vec<Filter>,
    /// The longest request body; 0 is no limit.
    pub body_limit: u64,
    /// How long the handlers may take together; `None` without plugins.
    pub deadline: Option<Duration>,
    /// A client that leaves does not end its handlers.
    pub keeps_on: bool,
    /// Clients do not reach it.
    pub internal: bool,
    /// Variables that `set` declares.
    pub settable: Arc<[String]>,
    /// What answers in place of an error, by status.
    pub error_pages: Vec<(u16, Target)>,
    /// What keeps its answers.
    pub cache: Option<Arc<crate::http_cache::HttpCache>>,
    /// Its content and its filters need the same runtime: the filters wait for the content's end.
    pub gathers: bool,
    /// Folder of `files`.
    pub document_root: Option<Arc<str>>,
}

impl Plan {
    /// Whether anything runs on its answer before that leaves.
    #[must_use]
    pub fn filters(&self) -> bool {
        !self.header_filters.is_empty() || !self.body_filters.is_empty()
    }

    /// Whether it answers without any plugin, file or peer: then nothing in it can wait.
    #[must_use]
    pub fn is_immediate(&self) -> bool {
        let immediate = |step: &Step| matches!(step.run, Run::Set { .. } | Run::Respond(_));
        !self.filters()
            && self.cache.is_none()
            && self.steps.iter().all(immediate)
            && matches!(
                self.steps.last(),
                Some(Step {
                    run: Run::Respond(_),
                    ..
                })
            )
    }
}

/// Where a request goes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A route, by its place.
    Route(usize),
    /// A URI of this server.
    Uri(String),
}

/// One station of a plan.
pub struct Step {
    /// Its phase.
    pub phase: Phase,
    /// What runs.
    pub run: Run,
}

/// What a step runs.
pub enum Run {
    /// A variable from a template.
    Set {
        /// Its name.
        variable: String,
        /// Its value.
        value: Template,
    },
    /// A variable from a plugin's `set`.
    SetCall {
        /// The plugin.
        plugin: PluginIndex,
        /// Its name.
        variable: String,
    },
    /// An ordinary plugin's handler.
    Call {
        /// The plugin.
        plugin: PluginIndex,
    },
    /// Neighbouring steps of a language runtime.
    Segment(Segment),
    /// A fixed answer.
    Respond(Respond),
    /// Files of a folder.
    Files(Root),
    /// A server that is asked.
    Proxy(crate::upstream::Proxy),
    /// Nothing makes an answer here: 404.
    Nothing,
}

impl Run {
    /// Whose handler it is, when a plugin runs.
    #[must_use]
    pub fn plugin(&self) -> Option<PluginIndex> {
        match self {
            Self::SetCall { plugin, .. }
            | Self::Call { plugin }
            | Self::Segment(Segment { plugin, .. }) => Some(*plugin),
            Self::Set { .. }
            | Self::Respond(_)
            | Self::Files(_)
            | Self::Proxy(_)
            | Self::Nothing => None,
        }
    }
}

/// Neighbouring steps of one language runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The plugin.
    pub plugin: PluginIndex,
    /// Its number in the runtime's program.
    pub number: u16,
    /// The runtime forgets the job when the answer has ended.
    pub forgets: bool,
    /// The plan's filters are all in the segment: they have run when its answer crosses.
    pub fused: bool,
}

/// A fixed answer, prepared.
pub struct Respond {
    /// The status.
    pub status: u16,
    /// Headers without variables.
    pub headers: HeaderMap,
    /// Headers with variables.
    pub templates: Vec<(http::HeaderName, Template)>,
    /// The body.
    pub body: Text,
}

/// Text that may hold variables.
pub enum Text {
    /// It does not.
    Fixed(Bytes),
    /// It does.
    Template(Template),
}

/// A step behind the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// The plugin.
    pub plugin: PluginIndex,
    /// Of a language runtime: the segment that has these handlers.
    pub segment: Option<u16>,
}
