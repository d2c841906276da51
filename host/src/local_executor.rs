//! Runs hyper's tasks on the worker's own thread, for clients' connections and for those to servers.

/// `spawn_local` as hyper's executor.
#[derive(Debug, Clone, Copy)]
pub struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}
