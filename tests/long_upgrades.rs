//! Ten upgrades in a row while a client fetches on fresh circuits: none fails.

#[path = "end_to_end/service.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod service;
#[path = "end_to_end/upgrading.rs"]
mod upgrading;

use rustbalance_lab::{Lab, Size};

#[test]
fn ten_upgrades_in_a_row_lose_no_request() {
    let lab = Lab::shared(Size::Small).expect("a lab can be had");
    upgrading::upgrade_under_requests(&lab, 10);
}
