//! A circuit breaker for LLM calls whose state several workers share through Redis.
