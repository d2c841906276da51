//! Asks three back ends at once: for all that answer in time, or for the first.

use std::time::Duration;

use phasor_plugin::{Answer, Request, config, http_client, task};

/// The plugin's `config` table.
#[derive(serde::Deserialize)]
struct Config {
    back_ends: Vec<String>,
}

/// How long a back end may take.
const PATIENCE: Duration = Duration::from_millis(500);

#[phasor_plugin::content]
async fn aggregate(request: &Request) -> Result<Answer, String> {
    let config: Config = config::read().map_err(|error| error.to_string())?;
    let mut asked: Vec<_> = config
        .back_ends
        .iter()
        .map(|url| http_client::get(url).timeout(PATIENCE).send())
        .collect();
    if request.uri() == "/first" {
        // Who fails is not the first. What is dropped is cancelled.
        while let Some((place, answer)) = task::select(asked.iter_mut().collect()).await {
            if let Ok(answer) = answer {
                return Ok(Answer::text(
                    String::from_utf8_lossy(&answer.body).into_owned(),
                ));
            }
            drop(asked.swap_remove(place));
        }
        return Ok(Answer::text("nobody answers").status(502));
    }
    let mut page = String::new();
    for (url, answer) in config.back_ends.iter().zip(task::join_all(asked).await) {
        match answer {
            Ok(answer) => page.push_str(&String::from_utf8_lossy(&answer.body)),
            Err(error) => {
                let name = url.rsplit('/').next().unwrap_or(url);
                page.push_str(&format!("{name}: {error:?}"));
            }
        }
        page.push('\n');
    }
    Ok(Answer::text(page))
}
