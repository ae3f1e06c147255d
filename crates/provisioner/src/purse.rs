//! The budget of a run: asked before every order, because the type that is left may cost more than the one that was planned.

use regionwise_provision::Line;
use rust_decimal::Decimal;

use crate::stopped::{Stopped, Why};

/// Money for one month, net, in the account's currency.
#[derive(Debug)]
pub struct Purse {
    /// `None`: no budget was set.
    limit: Option<Decimal>,
    spent: Decimal,
}

impl Purse {
    /// A purse with what is there already spent. Lines without a price are for the plan to refuse.
    pub fn new(limit: Option<Decimal>, lines: &[Line]) -> Self {
        let there = lines.iter().filter(|line| !line.new);
        Self {
            limit,
            spent: there.filter_map(|line| line.price).sum(),
        }
    }

    /// Whether an order of that price may be placed.
    ///
    /// # Errors
    /// [`Why::Budget`], also when there is a budget and no price.
    pub(crate) fn allows(&self, what: &str, price: Option<Decimal>) -> Result<(), Stopped> {
        let Some(limit) = self.limit else {
            return Ok(());
        };
        let Some(price) = price else {
            let text = format!("{what} has no price in the catalogue, and there is a budget");
            return Err(Stopped::new(Why::Budget, text));
        };
        if self.spent + price > limit {
            let left = limit - self.spent;
            let text =
                format!("{what} costs {price:.2} a month, and {left:.2} of the budget are left");
            return Err(Stopped::new(Why::Budget, text));
        }
        Ok(())
    }

    pub(crate) fn pay(&mut self, price: Option<Decimal>) {
        self.spent += price.unwrap_or_default();
    }
}
