//! `phasor check`: everything that `run` does before it binds.

use std::path::Path;
use std::process::ExitCode;

use crate::config::Config;
use crate::generation::BuildError;
use crate::server;

pub(super) fn main(file: &Path) -> ExitCode {
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(wrong) => return super::bad_configuration(&wrong),
    };
    match build(config) {
        Ok(()) => {
            use std::io::Write as _;
            let _told = writeln!(
                anstream::stdout(),
                "{}: the configuration is fine",
                file.display()
            )
            .is_ok();
            ExitCode::SUCCESS
        }
        Err(error) => match error.downcast_ref::<BuildError>() {
            Some(wrong) => super::bad_configuration(wrong),
            None => super::failed(&format!("{error:#}")),
        },
    }
}

fn build(config: Config) -> anyhow::Result<()> {
    let mut builder = server::builder(&config)?.dry();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(builder.build(config))?;
    Ok(())
}
