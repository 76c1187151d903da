//! What a service does, seen from outside: stories, the table of commands, and a small world with faults.

#[cfg(test)]
mod alerts;
#[cfg(test)]
mod alone;
mod checks;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod fleets;
#[cfg(test)]
mod gates;
mod groups;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod replays;
#[cfg(test)]
mod stories;
#[cfg(test)]
mod strategies;
#[cfg(test)]
mod tell;
#[cfg(test)]
mod world;
