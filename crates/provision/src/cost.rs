//! What a plan costs, and what the budget says to it.

use std::fmt;

use regionwise_topology::Budget;
use rust_decimal::Decimal;

use crate::catalogue::Prices;
use crate::plan::Line;

/// What all lines cost together, and what the budget says to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cost {
    /// The sum in this currency, and what is left of the budget if there is one.
    Within {
        sum: Decimal,
        currency: String,
        rest: Option<Decimal>,
    },
    Over {
        sum: Decimal,
        currency: String,
        budget: Decimal,
    },
    /// There is a budget, and nobody can say whether it is kept.
    Unknown(String),
}

impl Cost {
    pub fn of(lines: &[Line], prices: &Prices, budget: Option<&Budget>) -> Self {
        let sum: Decimal = lines.iter().filter_map(|line| line.price).sum();
        let currency = prices.currency.clone();
        let Some(budget) = budget else {
            return Self::Within {
                sum,
                currency,
                rest: None,
            };
        };
        if let Some(line) = lines.iter().find(|line| line.price.is_none()) {
            return Self::Unknown(format!(
                "the catalogue has no price for {} ({})",
                line.name, line.what
            ));
        }
        if currency != budget.currency {
            let (theirs, ours) = (&currency, &budget.currency);
            return Self::Unknown(format!(
                "the account pays in `{theirs}`, and the budget is in {ours}"
            ));
        }
        let Ok(amount) = Decimal::try_from(budget.amount) else {
            return Self::Unknown(format!("the budget {} is no amount", budget.amount));
        };
        match amount - sum {
            rest if rest < Decimal::ZERO => Self::Over {
                sum,
                currency,
                budget: amount,
            },
            rest => Self::Within {
                sum,
                currency,
                rest: Some(rest),
            },
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Within {
                sum,
                currency,
                rest: None,
            } => write!(f, "{sum:.2} {currency} a month, net"),
            Self::Within {
                sum,
                currency,
                rest: Some(rest),
            } => write!(
                f,
                "{sum:.2} {currency} a month, net; {rest:.2} {currency} of the budget left"
            ),
            Self::Over {
                sum,
                currency,
                budget,
            } => write!(
                f,
                "{sum:.2} {currency} a month, net, of a budget of {budget:.2} {currency}"
            ),
            Self::Unknown(why) => write!(f, "unknown: {why}"),
        }
    }
}
