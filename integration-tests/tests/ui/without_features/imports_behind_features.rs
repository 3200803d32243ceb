//! For an import, the compiler names the missing feature.
//~ unresolved import `tower_breaker::keyed`
//~ the item is gated behind the `keyed` feature
//~ unresolved import `tower_fault_classify::body::LlmErrors`
//~ unresolved import `tower_fault_classify::middleware`
//~ unresolved import `tower_fault_classify::rules::TowerHttp`
//~ unresolved import `tower_jitter_retry::TowerPolicy`

use tower_breaker::keyed::KeyedBreakerLayer;
use tower_fault_classify::body::LlmErrors;
use tower_fault_classify::middleware::TowerMiddleware;
use tower_fault_classify::rules::TowerHttp;
use tower_jitter_retry::TowerPolicy;

fn main() {}
