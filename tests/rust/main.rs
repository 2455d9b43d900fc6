//! The core as its clients see it: real connections over pipes in memory, fake applications behind them.

#[cfg(test)]
mod support;

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod disconnects;
#[cfg(test)]
mod framing;
#[cfg(test)]
mod http2;
#[cfg(test)]
mod interim;
#[cfg(test)]
mod policies;
#[cfg(test)]
mod proxies;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod timeouts;
#[cfg(test)]
mod websocket;
