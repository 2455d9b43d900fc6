//! The core as its clients see it: real connections over pipes in memory, fake applications behind them.

mod support;
mod websocket;
