"""Rulebooks that between them switch on every term of the schema, and snapshots at random.

`a_snapshot` knows no rulebook: what to hold and where marks lie it derives from the model, so that
any rulebook can be tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Any

from pydantic import BaseModel

from solvent.rules.model import InstrumentModel, RulebookModel

__all__ = ["RULEBOOKS", "Generator", "models_of"]

_PLAIN = "{initial_haircut_ppm: 0, maintenance_haircut_ppm: 0}"
_LIQUIDATION = """
      liquidator_fee_ppm: 10000
      fund_fee_max_ppm: 5000
      fillable: {spread_ppm: 1500000, adjustment_ppm: 1000000}
      dust_micros: 10000000
      offer_ttl_us: 60000000
"""

#: C1, C3 to C8 (haircuts, surcharges, caps), P2 to P5, P7, R1, R3 to R6, R8, funding.
_WEIGHTED = """
rulebook: {id: weighted, version: 1, settlement_asset: USD}
feeds:
  USDC/USD: {exponent: -8}
  SOL/USD: {exponent: -8}
  SOL/TWAP: {exponent: -8}
  BTC/USD: {exponent: -6}
  SOL-PERP: {exponent: -6}
  BTC-PERP: {exponent: -6}
  SOL/deposits: {exponent: -6, kind: state}
  SOL/borrows: {exponent: -6, kind: state}
  SOL-PERP/oi: {exponent: -6, kind: state}
  BTC-PERP/oi: {exponent: -6, kind: state}
  SOL-PERP/net: {exponent: -6, kind: state}
  SOL-PERP/funding: {exponent: -12, kind: state}
assets:
  USD: {quantum_exponent: -6, borrowable: true}
  USDC: {quantum_exponent: -6, index_feed: USDC/USD, borrowable: true}
  SOL: {quantum_exponent: -9, index_feed: SOL/USD, borrowable: true}
  BTC: {quantum_exponent: -8, index_feed: BTC/USD}
  DUST: {quantum_exponent: -9, index_feed: SOL/USD}
instruments:
  SOL-PERP: {id: 1, lot: "0.01", tick: "0.0001", mark_feed: SOL-PERP, index_feed: SOL/USD,
             settles_in: USDC, funding_feed: SOL-PERP/funding}
  BTC-PERP: {id: 2, lot: "0.0001", tick: "0.1", mark_feed: BTC-PERP, settles_in: USD}
presets:
  main:
    collateral:
      USD: {initial_haircut_ppm: 0, maintenance_haircut_ppm: 0}
      USDC:
        initial_haircut_ppm: 10000
        maintenance_haircut_ppm: 0
        initial_surcharge_ppm: 20000
        maintenance_surcharge_ppm: 10000
        price: {confidence_k_ppm: 1000000, confidence_most_ppm: 50000}
      SOL:
        initial_haircut_ppm: 200000
        liquidation_end_haircut_ppm: 150000
        maintenance_haircut_ppm: 100000
        initial_surcharge_ppm: 200000
        liquidation_end_surcharge_ppm: 150000
        maintenance_surcharge_ppm: 100000
        imf: "0.003"
        pool: {deposits_feed: SOL/deposits, deposits_start_usd: 1000000, floor_ppm: 100,
               borrows_feed: SOL/borrows, borrows_start_usd: 500000}
        price: {confidence_k_ppm: 2120000, confidence_most_ppm: 50000, reference_feed: SOL/TWAP}
        cap: "5000"
      BTC:
        skew: {scale: "100", scalar_ppm: 1500000, lower_ppm: 20000, upper_ppm: 500000}
        price: {reference_feed: SOL/TWAP, reference_at: all}
        cap_micros: 300000000000
    pnl:
      kind: weighted
      settle_price: true
      initial_ppm: 900000
      liquidation_end_ppm: 950000
      maintenance_ppm: 1000000
      imf: "0.0005"
      markets:
        SOL-PERP: {initial_ppm: 800000, maintenance_ppm: 1000000, cap_micros: 5000000000,
                   imbalance: {net_pnl_feed: SOL-PERP/net, most_usd: 100000}}
    requirement:
      sum:
        - term: flat
          markets:
            SOL-PERP: {initial_rate_ppm: 100000, liquidation_end_rate_ppm: 60000,
                       maintenance_rate_ppm: 50000, imf: "0.0012",
                       open_interest: {feed: SOL-PERP/oi, lower_usd: 100000, upper_usd: 2000000}}
          default: {initial_rate_ppm: 50000, maintenance_fraction_ppm: 333333, slope: "0.0005",
                    open_interest: {feed: BTC-PERP/oi, lower_usd: 0, upper_usd: 100000000},
                    add_micros: 100000, least_micros: 50000000}
        - {term: own_leverage}
    liquidation:
      end: {buffer_ppm: 7000}LIQUIDATION
bindings: {all: main}
default_class: all
"""

#: P7 folded, entry basis, liabilities at the liquidation end.
_FOLDED = """
rulebook: {id: folded, version: 1, settlement_asset: USD}
feeds:
  USDT/USD: {exponent: -8}
  ETH/USD: {exponent: -6}
  ETH-PERP: {exponent: -6}
  XRP-PERP: {exponent: -8}
  ETH-PERP/funding: {exponent: -12, kind: state}
assets:
  USD: {quantum_exponent: -6, borrowable: true}
  USDT: {quantum_exponent: -6, index_feed: USDT/USD, borrowable: true}
  ETH: {quantum_exponent: -8, index_feed: ETH/USD, borrowable: true}
instruments:
  ETH-PERP: {id: 7, lot: "0.001", tick: "0.01", mark_feed: ETH-PERP, settles_in: USDT,
             funding_feed: ETH-PERP/funding}
  XRP-PERP: {id: 3, lot: "1", tick: "0.0001", mark_feed: XRP-PERP, settles_in: USDT}
presets:
  main:
    collateral:
      USD: {initial_haircut_ppm: 0, maintenance_haircut_ppm: 0}
      USDT: {initial_haircut_ppm: 30000, maintenance_haircut_ppm: 20000,
             initial_surcharge_ppm: 50000, maintenance_surcharge_ppm: 10000,
             price: {confidence_k_ppm: 1500000}}
      ETH: {initial_haircut_ppm: 100000, maintenance_haircut_ppm: 70000,
            initial_surcharge_ppm: 100000, maintenance_surcharge_ppm: 40000}
    pnl: {kind: weighted, fold: true, settle_price: true, initial_ppm: 950000,
          maintenance_ppm: 1000000}
    requirement:
      sum:
        - term: flat
          notional_basis: entry
          markets:
            XRP-PERP: {initial_rate_ppm: 200000, maintenance_rate_ppm: 80000}
        - term: flat
          default: {initial_rate_ppm: 62500, maintenance_rate_ppm: 31250, imf: "0.00005",
                    slope: "0.00001"}
    liquidation:
      end: {buffer_ppm: 10000, of_liabilities: true}LIQUIDATION
bindings: {all: main}
default_class: all
"""

#: C2 in coins and in value, with C4, C5 and C8; C9; R2.
_TIERED = """
rulebook: {id: tiered, version: 1, settlement_asset: USDC}
feeds:
  BTC/USD: {exponent: -6}
  ETH/USD: {exponent: -6}
  STETH/USD: {exponent: -6}
  BTC-PERP: {exponent: -6}
  ETH-PERP: {exponent: -6}
  ETH/deposits: {exponent: -3, kind: state}
assets:
  USDC: {quantum_exponent: -6, borrowable: true}
  BTC: {quantum_exponent: -8, index_feed: BTC/USD, borrowable: true}
  ETH: {quantum_exponent: -8, index_feed: ETH/USD, borrowable: true, category: ether}
  STETH: {quantum_exponent: -8, index_feed: STETH/USD, category: ether}
  RETH: {quantum_exponent: -8, index_feed: ETH/USD, category: ether}
instruments:
  BTC-PERP: {id: 1, lot: "0.0001", tick: "0.1", mark_feed: BTC-PERP, settles_in: USDC}
  ETH-PERP: {id: 2, lot: "0.001", tick: "0.01", mark_feed: ETH-PERP, settles_in: USDC}
presets:
  main:
    collateral:
      USDC: {initial_haircut_ppm: 0, maintenance_haircut_ppm: 0}
      BTC:
        tiers: [{up_to: "1.5", haircut_ppm: 20000},
                {up_to: "10", initial_haircut_ppm: 100000, maintenance_haircut_ppm: 80000},
                {up_to: "40", haircut_ppm: 1000000}]
        cap_micros: 400000000000
        price: {confidence_k_ppm: 1000000}
      ETH:
        tiers_in: value
        tiers: [{up_to: "10000", initial_haircut_ppm: 70000, liquidation_end_haircut_ppm: 60000,
                 maintenance_haircut_ppm: 50000},
                {up_to: "250000", haircut_ppm: 120000}, {up_to: null, haircut_ppm: 300000}]
        initial_surcharge_ppm: 100000
        cap: "300"
      STETH: {initial_haircut_ppm: 200000, maintenance_haircut_ppm: 150000, imf: "0.001",
              pool: {deposits_feed: ETH/deposits, deposits_start_usd: 30000000}}
    categories:
      ether: {initial_haircut_ppm: 90000, liquidation_end_haircut_ppm: 70000,
              maintenance_haircut_ppm: 60000}
    requirement:
      sum:
        - term: brackets
          markets:
            BTC-PERP:
              - {up_to_usd: 250000, initial_rate_ppm: 20000, maintenance_rate_ppm: 10000}
              - {up_to_usd: 1000000, initial_rate_ppm: 50000, liquidation_end_rate_ppm: 30000,
                 maintenance_rate_ppm: 20000}
              - {up_to_usd: null, initial_rate_ppm: 100000, maintenance_rate_ppm: 50000}
          default:
            - {up_to_usd: 10000, initial_rate_ppm: 30000, maintenance_rate_ppm: 15000}
            - {up_to_usd: null, initial_rate_ppm: 1000000, maintenance_rate_ppm: 500000}
        - {term: own_leverage}
    orders: {kind: worst_case, per_order_micros: 10000, open_loss: true, fee_ppm: 500}
    liquidation:
      end: {buffer_ppm: 5000}LIQUIDATION
bindings: {all: main}
default_class: all
"""

#: 3.6 with interest, C6 and C9; a second class that lets haircuts be required.
_LENDING = """
rulebook: {id: lending, version: 1, settlement_asset: USD}
feeds:
  USDC/USD: {exponent: -8}
  ETH/USD: {exponent: -8}
  WBTC/USD: {exponent: -8}
  USDC/deposit: {exponent: -18, kind: state}
  USDC/borrow: {exponent: -18, kind: state}
  ETH/deposit: {exponent: -18, kind: state}
assets:
  USD: {quantum_exponent: -6}
  USDC: {quantum_exponent: -6, index_feed: USDC/USD, borrowable: true, category: stable,
         deposit_index_feed: USDC/deposit, borrow_index_feed: USDC/borrow}
  ETH: {quantum_exponent: -12, index_feed: ETH/USD, borrowable: true, category: ether,
        deposit_index_feed: ETH/deposit}
  WBTC: {quantum_exponent: -8, index_feed: WBTC/USD}
presets:
  lend:
    collateral:
      USD: {initial_haircut_ppm: 0, maintenance_haircut_ppm: 0}
      USDC: {initial_haircut_ppm: 250000, maintenance_haircut_ppm: 220000,
             price: {confidence_k_ppm: 1000000, confidence_most_ppm: 50000}}
      ETH: {initial_haircut_ppm: 200000, maintenance_haircut_ppm: 170000,
            initial_surcharge_ppm: 30000, price: {confidence_k_ppm: 2120000}}
      WBTC: {initial_haircut_ppm: 270000, maintenance_haircut_ppm: 220000}
    categories:
      stable: {initial_haircut_ppm: 70000, maintenance_haircut_ppm: 50000}
    debt: requirement
    liquidation:LIQUIDATION
  charge:
    collateral:
      USD: {initial_haircut_ppm: 0, maintenance_haircut_ppm: 0}
      USDC: {initial_haircut_ppm: 100000, maintenance_haircut_ppm: 50000, imf: "0.0001",
             haircut_side: requirement, cap_micros: 20000000000}
      ETH: {initial_haircut_ppm: 200000, maintenance_haircut_ppm: 170000, cap: "100",
            initial_surcharge_ppm: 30000, haircut_side: requirement}
      WBTC: {skew: {scale: "10", scalar_ppm: 1000000, lower_ppm: 50000, upper_ppm: 400000},
             haircut_side: requirement}
    liquidation:
      end: {target_ratio_ppm: 1100000}LIQUIDATION
bindings: {lender: lend, other: charge}
default_class: lender
"""

#: P6, R7, target ratio.
_NET = """
rulebook: {id: net, version: 1, settlement_asset: USDC}
feeds:
  BTC/USD: {exponent: -6}
  BTC-PERP: {exponent: -6}
  SOL-PERP: {exponent: -6}
  SOL-PERP/funding: {exponent: -12, kind: state}
assets:
  USDC: {quantum_exponent: -6, borrowable: true}
  BTC: {quantum_exponent: -8, index_feed: BTC/USD, borrowable: true}
instruments:
  BTC-PERP: {id: 1, lot: "0.0001", tick: "0.1", mark_feed: BTC-PERP, settles_in: USDC}
  SOL-PERP: {id: 2, lot: "0.01", tick: "0.0001", mark_feed: SOL-PERP, settles_in: USDC,
             funding_feed: SOL-PERP/funding}
presets:
  netted:
    collateral:
      USDC: {initial_haircut_ppm: 0, maintenance_haircut_ppm: 0}
      BTC: {initial_haircut_ppm: 150000, maintenance_haircut_ppm: 100000, imf: "0.02",
            initial_surcharge_ppm: 150000, maintenance_surcharge_ppm: 100000}
    pnl: {kind: weighted, net_of_requirement: true, initial_ppm: 700000, maintenance_ppm: 900000}
    requirement:
      sum:
        - term: flat
          default: {initial_rate_ppm: 100000, maintenance_rate_ppm: 50000}
    orders: {kind: worst_case, at: initial, per_order_micros: 1000000}
    liquidation:LIQUIDATION
  slipped:
    collateral:
      USDC: {initial_haircut_ppm: 0, maintenance_haircut_ppm: 0}
      BTC: {initial_haircut_ppm: 150000, maintenance_haircut_ppm: 100000}
    requirement:
      sum:
        - term: slippage
          markets:
            SOL-PERP: {linear: "0.02", quadratic: "0.0001", risk_long: "0.05", risk_short: "0.08",
                       funding_factor_ppm: 500000, initial_scale_ppm: 1500000,
                       liquidation_end_scale_ppm: 1200000}
        - term: slippage
          default: {linear: "0", quadratic: "0.01", risk_long: "0.03", risk_short: "0.02",
                    initial_scale_ppm: 1400000, liquidation_end_scale_ppm: 1100000}
    orders: {kind: worst_case, at: initial}
    liquidation:LIQUIDATION
  ratio:
    collateral:
      USDC: {initial_haircut_ppm: 0, maintenance_haircut_ppm: 0}
      BTC: {initial_haircut_ppm: 150000, liquidation_end_haircut_ppm: 120000,
            maintenance_haircut_ppm: 100000}
    pnl:
      kind: weighted
      markets: {BTC-PERP: {initial_ppm: 500000, maintenance_ppm: 750000}}
    requirement:
      sum:
        - term: flat
          default: {initial_rate_ppm: 100000, maintenance_fraction_ppm: 700000}
    liquidation:
      end: {target_ratio_ppm: 1111112}LIQUIDATION
bindings: {netted: netted, slipped: slipped, ratio: ratio}
default_class: netted
"""

#: R9 beside linear contracts.
_INVERSE = """
rulebook: {id: inverse, version: 1, settlement_asset: USD}
feeds:
  BTC/USD: {exponent: -4}
  BTC-INV: {exponent: -2}
  BTC-DATED: {exponent: -2}
  ETH/USD: {exponent: -6}
  ETH-INV: {exponent: -4}
  BTC-INV/funding: {exponent: -12, kind: state}
assets:
  USD: {quantum_exponent: -6, borrowable: true}
  BTC: {quantum_exponent: -8, index_feed: BTC/USD}
  ETH: {quantum_exponent: -9, index_feed: ETH/USD}
instruments:
  BTC-INV: {id: 1, kind: inverse, lot: "1", tick: "0.5", face: "10", mark_feed: BTC-INV,
            settles_in: BTC, funding_feed: BTC-INV/funding}
  BTC-DATED: {id: 2, kind: inverse, lot: "10", tick: "0.5", face: "1", mark_feed: BTC-DATED,
              settles_in: BTC, expires_at_us: 1767225600000000}
  ETH-INV: {id: 3, kind: inverse, lot: "1", tick: "0.05", face: "1", mark_feed: ETH-INV,
            settles_in: ETH}
presets:
  main:
    collateral:
      USD: {initial_haircut_ppm: 0, maintenance_haircut_ppm: 0}
      BTC: {initial_haircut_ppm: 50000, maintenance_haircut_ppm: 30000,
            price: {confidence_k_ppm: 1000000}}
      ETH: {initial_haircut_ppm: 80000, maintenance_haircut_ppm: 60000, haircut_side: requirement}
    requirement:
      sum:
        - term: flat
          markets:
            BTC-INV: {initial_rate_ppm: 20000, maintenance_fraction_ppm: 500000, slope: "0.00005"}
            BTC-DATED: {initial_rate_ppm: 20000, maintenance_rate_ppm: 10000, imf: "0.002",
                        least_micros: 1000000}
        - term: brackets
          default:
            - {up_to_usd: 50000, initial_rate_ppm: 20000, maintenance_rate_ppm: 10000}
            - {up_to_usd: null, initial_rate_ppm: 40000, maintenance_rate_ppm: 20000}
    liquidation:
      end: {buffer_ppm: 3000}LIQUIDATION
bindings: {all: main}
default_class: all
"""

_OPTION_MARKET = """
feeds:
  X/USD: {exponent: -6}
  X/index: {exponent: -6}
  USDC/USD: {exponent: -8}
  X-PERP: {exponent: -6}
  X-1/F: {exponent: -6}
  X-2/F: {exponent: -6}
  X/quality: {exponent: -6, kind: state}
  X-PERP/quality: {exponent: -6, kind: state}
  X-1/quality: {exponent: -6, kind: state}
  COIN/quality: {exponent: -6, kind: state}
  X-1/rate: {exponent: -9, kind: state}
  X-1-a/iv: {exponent: -9, kind: state}
  X-1-b/iv: {exponent: -9, kind: state}
  X-2-a/iv: {exponent: -9, kind: state}
  X-2-b/iv: {exponent: -9, kind: state}
  COIN/USD: {exponent: -6}
assets:
  USDC: {quantum_exponent: -6, borrowable: true}
  X: {quantum_exponent: -9, index_feed: X/index, underlying: X}
  COIN: {quantum_exponent: -9, index_feed: COIN/USD, quality_feed: COIN/quality}
underlyings:
  X: {spot_feed: X/USD, quality_feed: X/quality, stable_feed: USDC/USD}
instruments:
  X-PERP: {id: 1, lot: "0.001", tick: "0.01", mark_feed: X-PERP, settles_in: USDC, underlying: X,
           quality_feed: X-PERP/quality}
  X-1-1800-C: {id: 10, kind: option, lot: "0.01", tick: "0.01", settles_in: USDC, underlying: X,
               right: call, strike: "1800", expires_at_us: 1767225600000000, forward_feed: X-1/F,
               rate_feed: X-1/rate, volatility_feed: X-1-a/iv, quality_feed: X-1/quality}
  X-1-1800-P: {id: 11, kind: option, lot: "0.01", tick: "0.01", settles_in: USDC, underlying: X,
               right: put, strike: "1800", expires_at_us: 1767225600000000, forward_feed: X-1/F,
               rate_feed: X-1/rate, volatility_feed: X-1-a/iv, quality_feed: X-1/quality}
  X-1-2200-C: {id: 12, kind: option, lot: "0.01", tick: "0.01", settles_in: USDC, underlying: X,
               right: call, strike: "2200", expires_at_us: 1767225600000000, forward_feed: X-1/F,
               rate_feed: X-1/rate, volatility_feed: X-1-b/iv, quality_feed: X-1/quality,
               settlement: variation}
  X-2-1500-P: {id: 20, kind: option, lot: "0.01", tick: "0.01", settles_in: USDC, underlying: X,
               right: put, strike: "1500", expires_at_us: 1774915200000000, forward_feed: X-2/F,
               volatility_feed: X-2-a/iv}
  X-2-3000-C: {id: 21, kind: option, lot: "0.01", tick: "0.01", settles_in: USDC, underlying: X,
               right: call, strike: "3000.5", expires_at_us: 1774915200000000, forward_feed: X-2/F,
               volatility_feed: X-2-b/iv}
"""

_STANDARD_TERM = """{term: option_standard, initial_share_ppm: 150000, initial_least_ppm: 100000,
           maintenance_call_ppm: 75000, maintenance_put_ppm: 75000,
           maintenance_put_value_ppm: 75000, put_ratio_ppm: 1050000, unpaired_initial_ppm: 1200000,
           unpaired_maintenance_ppm: 1100000, linear_initial_ppm: 65000,
           linear_maintenance_ppm: 50000, base_initial_ppm: 640000, base_maintenance_ppm: 800000,
           quality_threshold_ppm: 400000, quality_factor_ppm: 400000, peg_ppm: 980000,
           peg_factor_ppm: 1200000}"""

_SCAN_TERM = """{term: scan,
           scenarios: [{spot: "0.85", volatility: up}, {spot: "0.85", volatility: down},
                       {spot: "1", volatility: up}, {spot: "1", volatility: none},
                       {spot: "1.15", volatility: up}, {spot: "1.15", volatility: down},
                       {spot: "0.4", volatility: up, damp: "0.1"},
                       {spot: "2.5", volatility: none, damp: "0.05"},
                       {spot: "1", volatility: linear}, {spot: "1", volatility: abs}],
           volatility_shock: {up_ppm: 450000, down_ppm: 300000, least_ppm: 400000,
                              short_power_ppm: 300000, long_power_ppm: 130000,
                              floor_days: "2"},
           static_discount: {gain_ppm: 950000, gain_rate_ppm: 1000000, gain_add_ppm: 50000,
                             loss_ppm: 1050000, loss_rate_ppm: 500000, loss_add_ppm: 80000},
           basis: {up: "1.05", down: "0.95", add_ppm: 250000, mult_ppm: 1000000},
           smile: {linear_cap_ppm: 120000, linear_base_ppm: -50000, abs_cap_ppm: 100000,
                   abs_base_ppm: -40000, least_width_ppm: 10000, width_ppm: 4000000,
                   width_volatility_ppm: 600000, width_slope_ppm: -100000},
           loss_initial_ppm: 1100000, loss_maintenance_ppm: 800000,
           peg_ppm: 985000, peg_factor_ppm: 2000000}"""

_CONTINGENCIES_TERM = """{term: contingencies, linear_maintenance_ppm: 15000,
           linear_more_ppm: 5000, option_maintenance_ppm: 3000, option_more_ppm: 2000,
           quality_threshold_ppm: 550000, quality_factor_ppm: 500000}"""

_OPTIONS = f"""
rulebook: {{id: options, version: 1, settlement_asset: USDC}}
{_OPTION_MARKET}
presets:
  standard:
    collateral:
      USDC: {_PLAIN}
      X: {_PLAIN}
      COIN: {{initial_haircut_ppm: 100000, maintenance_haircut_ppm: 50000}}
    requirement:
      sum:
        - {_STANDARD_TERM}
    liquidation:LIQUIDATION
  isolated:
    collateral:
      USDC: {_PLAIN}
    requirement:
      sum:
        - {_STANDARD_TERM.replace("option_standard,", "option_standard, max_loss: false,")}
        - {{term: flat, markets: {{X-PERP: {{initial_rate_ppm: 50000,
                                             maintenance_rate_ppm: 25000}}}}}}
    liquidation:LIQUIDATION
bindings: {{all: standard, isolated: isolated}}
default_class: all
"""

_SCENARIOS = f"""
rulebook: {{id: scenarios, version: 1, settlement_asset: USDC}}
{_OPTION_MARKET}
presets:
  scanned:
    collateral:
      USDC: {_PLAIN}
      X: {{initial_haircut_ppm: 30000, maintenance_haircut_ppm: 20000, haircut_side: requirement}}
      COIN: {{initial_haircut_ppm: 300000, maintenance_haircut_ppm: 200000,
              haircut_side: requirement}}
    requirement:
      sum:
        - {_SCAN_TERM}
        - {_CONTINGENCIES_TERM}
    liquidation:LIQUIDATION
  floored:
    collateral:
      USDC: {_PLAIN}
      X: {_PLAIN}
    requirement:
      sum:
        - max:
          - {_SCAN_TERM}
          - {{term: delta_floor, net_ppm: 15000, hedged_ppm: 4000, maintenance_ppm: 700000}}
        - {{term: short_minimum, initial_ppm: 5000, maintenance_ppm: 3000}}
        - {{term: flat, default: {{initial_rate_ppm: 50000, maintenance_rate_ppm: 25000}}}}
    liquidation:
      end: {{target_ratio_ppm: 1020000}}LIQUIDATION
bindings: {{scan: scanned, floor: floored}}
default_class: scan
"""

#: Trees; dated and inverse contracts margined with options; two underlyings.
_TREES = f"""
rulebook: {{id: trees, version: 1, settlement_asset: USD}}
feeds:
  X/USD: {{exponent: -6}}
  X-PERP: {{exponent: -6}}
  X-FUT: {{exponent: -6}}
  X-INV: {{exponent: -6}}
  X-1/F: {{exponent: -6}}
  Y/USD: {{exponent: -6}}
  Y-PERP: {{exponent: -6}}
  Y-1/F: {{exponent: -6}}
  X-1/iv: {{exponent: -9, kind: state}}
  Y-1/iv: {{exponent: -9, kind: state}}
  Y-1/rate: {{exponent: -9, kind: state}}
  X-PERP/funding: {{exponent: -12, kind: state}}
assets:
  USD: {{quantum_exponent: -6, borrowable: true}}
  X: {{quantum_exponent: -9, index_feed: X/USD, underlying: X, borrowable: true}}
  Y: {{quantum_exponent: -9, index_feed: Y/USD, underlying: Y}}
underlyings:
  X: {{spot_feed: X/USD}}
  Y: {{spot_feed: Y/USD}}
instruments:
  X-PERP: {{id: 1, lot: "0.001", tick: "0.01", mark_feed: X-PERP, settles_in: USD, underlying: X,
            funding_feed: X-PERP/funding}}
  X-FUT: {{id: 2, lot: "0.001", tick: "0.01", mark_feed: X-FUT, settles_in: USD, underlying: X,
           expires_at_us: 1767225600000000}}
  X-INV: {{id: 3, kind: inverse, lot: "1", tick: "0.01", face: "10", mark_feed: X-INV,
           settles_in: X, underlying: X}}
  Y-PERP: {{id: 4, lot: "0.1", tick: "0.001", mark_feed: Y-PERP, settles_in: USD, underlying: Y}}
  X-1-C: {{id: 5, kind: option, lot: "0.01", tick: "0.01", settles_in: USD, underlying: X,
           right: call, strike: "2000", expires_at_us: 1767225600000000, forward_feed: X-1/F,
           volatility_feed: X-1/iv}}
  X-1-P: {{id: 6, kind: option, lot: "0.01", tick: "0.01", settles_in: USD, underlying: X,
           right: put, strike: "2000", expires_at_us: 1767225600000000, forward_feed: X-1/F,
           volatility_feed: X-1/iv}}
  Y-1-C: {{id: 7, kind: option, lot: "1", tick: "0.001", settles_in: USD, underlying: Y,
           right: call, strike: "20", expires_at_us: 1774915200000000, forward_feed: Y-1/F,
           volatility_feed: Y-1/iv, rate_feed: Y-1/rate}}
presets:
  nested:
    collateral:
      USD: {_PLAIN}
      X: {{initial_haircut_ppm: 10000, maintenance_haircut_ppm: 0}}
    requirement:
      sum:
        - scale_ppm: 900000
          max:
            - sum:
                - {_SCAN_TERM}
                - {{term: calendar_spread, initial_ppm: 20000, maintenance_ppm: 10000}}
            - min:
                - {{term: delta_floor, net_ppm: 150000, hedged_ppm: 40000}}
                - {{term: short_minimum, initial_ppm: 300000, maintenance_ppm: 200000}}
              scale_ppm: 2000000
            - {_CONTINGENCIES_TERM}
    liquidation:LIQUIDATION
  smallest:
    collateral:
      USD: {_PLAIN}
    requirement:
      sum:
        - min:
            - {_STANDARD_TERM}
            - sum: [{{term: delta_floor, net_ppm: 300000, hedged_ppm: 100000}},
                    {{term: short_minimum, initial_ppm: 10000, maintenance_ppm: 10000}}]
        - {{term: calendar_spread, initial_ppm: 20000, maintenance_ppm: 10000}}
        - term: flat
          markets: {{X-INV: {{initial_rate_ppm: 50000, maintenance_rate_ppm: 25000}}}}
    liquidation:LIQUIDATION
bindings: {{nested: nested, smallest: smallest}}
default_class: nested
"""

RULEBOOKS = {
    name: text.replace("liquidation:LIQUIDATION", "liquidation:" + _LIQUIDATION).replace(
        "LIQUIDATION", _LIQUIDATION
    )
    for name, text in {
        "weighted": _WEIGHTED,
        "folded": _FOLDED,
        "tiered": _TIERED,
        "lending": _LENDING,
        "net": _NET,
        "inverse": _INVERSE,
        "options": _OPTIONS,
        "scenarios": _SCENARIOS,
        "trees": _TREES,
    }.items()
}


# -- snapshots at random


def _text(number: float, places: int) -> str:
    """Return a number as a plain decimal of so many places."""
    return f"{Decimal(number):.{places}f}"


def models_of(value: object) -> Iterator[BaseModel]:
    """Yield all models below one."""
    if isinstance(value, BaseModel):
        yield value
        for name in type(value).model_fields:
            yield from models_of(getattr(value, name))
    elif isinstance(value, dict | list | tuple):
        for below in value.values() if isinstance(value, dict) else value:
            yield from models_of(below)


@dataclass
class _Clusters:
    """Feeds whose prices lie together."""

    parent: dict[str, str] = field(default_factory=dict)

    def root(self, feed: str) -> str:
        while self.parent.setdefault(feed, feed) != feed:
            feed = self.parent[feed]
        return feed

    def join(self, feeds: Iterable[str | None]) -> None:
        known = [feed for feed in feeds if feed is not None]
        for feed in known:
            self.parent[self.root(feed)] = self.root(known[0])


class Generator:
    """Maker of snapshots of one rulebook.

    Parameters
    ----------
    model : RulebookModel
        What may be held, and which feeds there are.
    with_orders : bool
        Whether accounts have open orders and leverage limits of their own.
    """

    def __init__(self, model: RulebookModel, *, with_orders: bool = True) -> None:
        self.model = model
        self.with_orders = with_orders
        self._clusters = self._find_clusters()
        self._states = self._find_states()
        self._strikes = {
            self._clusters.root(i.forward_feed): float(i.strike)
            for i in model.instruments.values()
            if i.forward_feed is not None and i.strike is not None
        }
        self._stables = {u.stable_feed for u in model.underlyings.values()} - {None}
        #: Assets told in micros are worth about one: their balances are at most 2**53 micros.
        self._ones = {
            self._clusters.root(asset.index_feed)
            for asset in model.assets.values()
            if asset.index_feed is not None and asset.quantum_exponent == -6
        }

    def _find_clusters(self) -> _Clusters:
        clusters, assets = _Clusters(), self.model.assets
        for contract in self.model.instruments.values():
            clusters.join([contract.mark_feed, contract.index_feed, contract.forward_feed])
            if contract.underlying is not None:
                spot = self.model.underlyings[contract.underlying].spot_feed
                clusters.join([spot, contract.mark_feed, contract.forward_feed])
            if contract.kind == "inverse":
                clusters.join([contract.mark_feed, assets[contract.settles_in].index_feed])
        for asset in assets.values():
            if asset.underlying is not None:
                spot = self.model.underlyings[asset.underlying].spot_feed
                clusters.join([spot, asset.index_feed])
        for preset in self.model.presets.values():
            for name, given in preset.collateral.items():
                clusters.join([assets[name].index_feed, given.price.reference_feed])
        return clusters

    def _find_states(self) -> dict[str, str]:
        """Return what each state feed tells, by the key that names it."""
        found: dict[str, str] = {}
        for model in models_of(self.model):
            for name in type(model).model_fields:
                value = getattr(model, name)
                if (name.endswith("_feed") or name == "feed") and isinstance(value, str):
                    found[value] = "open_interest" if name == "feed" else name.removesuffix("_feed")
        return found

    # -- marks

    def marks(self, random: Random) -> tuple[dict[str, Any], int]:
        """Return marks of all feeds and the time they are of."""
        ts_us = self._time(random)
        marks: dict[str, Any] = {}
        bases: dict[str, float] = {}
        for name, feed in self.model.feeds.items():
            if feed.kind != "price":
                continue
            root = self._clusters.root(name)
            if root not in bases:
                bases[root] = self._base(random, name, root)
            price = bases[root] * random.choice([1.0, random.uniform(0.9, 1.1)])
            price = min(max(price, 10.0 ** (feed.exponent + 2)), 2.0**52 * 10.0**feed.exponent)
            marks[name] = _text(price, -feed.exponent)
            if random.random() < 0.5:
                confidence = price * random.choice([0.0, 0.001, 0.02, 0.9])
                marks[name] = {
                    "price": marks[name],
                    "confidence": _text(confidence, -feed.exponent),
                }
        for name, feed in self.model.feeds.items():
            if feed.kind == "state":
                value = self._state(random, self._states.get(name, ""))
                value = min(value, 2.0**61 * 10.0**feed.exponent)
                marks[name] = _text(value, -feed.exponent)
        self._level_volatilities(random, marks)
        return marks, ts_us

    def _base(self, random: Random, name: str, root: str) -> float:
        if self._stables & {name, root}:
            return random.choice([1.0, random.uniform(0.9, 1.02)])
        if root in self._ones:
            return random.choice([1.0, random.uniform(0.9, 1.1), random.uniform(0.2, 5.0)])
        exponent = self.model.feeds[name].exponent
        base = self._strikes.get(root) or random.choice([0.5, 20.0, 2_000.0, 60_000.0])
        base = min(max(base, 10.0 ** (exponent + 4)), 2.0**49 * 10.0**exponent)
        return base * random.choice([1.0, random.uniform(0.7, 1.4), random.uniform(0.2, 5.0)])

    def _state(self, random: Random, what: str) -> float:
        if what == "volatility":
            return random.uniform(0.1, 3.0)
        if what == "rate":
            return random.choice([0.0, random.uniform(-0.05, 0.3)])
        if what == "quality":
            return random.choice([0.0, 0.3, 0.5, 0.8, 1.0, 1.0, 1.0])
        if what in {"deposit_index", "borrow_index"}:
            return random.uniform(1.0, 3.0)
        if what == "funding":
            return random.uniform(-1.0, 1.0)
        amount = 10.0 ** random.uniform(0, 6)
        if what == "net_pnl":
            return amount * random.choice([-1, 1])
        return random.choice([0.0, amount])  # coins of pools and open interest

    def _level_volatilities(self, random: Random, marks: dict[str, Any]) -> None:
        """Let options of one date agree: surfaces on which they cross are refused."""
        of_expiry: dict[tuple[Any, ...], float] = {}
        for contract in self.model.instruments.values():
            if contract.volatility_feed is None:
                continue
            key = (contract.underlying, contract.expires_at_us, contract.forward_feed)
            level = of_expiry.setdefault(key, random.uniform(0.1, 3.0))
            places = -self.model.feeds[contract.volatility_feed].exponent
            marks[contract.volatility_feed] = _text(level * random.choice([1, 1.001]), places)

    def _time(self, random: Random) -> int:
        ends = [i.expires_at_us for i in self.model.instruments.values() if i.expires_at_us]
        if not ends:
            return random.choice([0, 1_735_689_600_000_000])
        left_s = random.choice([0, 1, 600, 1_800, 86_400, 30 * 86_400, random.randrange(10**8)])
        return max(0, random.choice(ends) - left_s * 10**6)

    # -- accounts

    def account(
        self, random: Random, marks: dict[str, Any], ts_us: int, *, name: str = "a"
    ) -> dict[str, Any]:
        """Return an account under some class, cross or isolated."""
        account: dict[str, Any] = {
            "account_id": name,
            "account_class": random.choice(list(self.model.bindings)),
        }
        alive = [
            market
            for market, contract in self.model.instruments.items()
            if contract.expires_at_us is None or contract.expires_at_us >= ts_us
        ]
        if alive and random.random() < 0.15:
            account["subaccount"] = random.choice(alive)
            alive = [account["subaccount"]]
        chosen = random.sample(alive, random.randint(0, min(len(alive), 6)))
        account["positions"] = [self._position(random, marks, market) for market in chosen]
        stake = 10.0 ** random.uniform(1, 5)
        preset = self.model.presets[self.model.bindings[account["account_class"]]]
        category = random.choice([None, *preset.categories]) if preset.categories else None
        assets = [
            asset
            for asset, given in self.model.assets.items()
            if category is None or given.category == category
        ]
        held = random.sample(assets, random.randint(0, len(assets)))
        account["collateral"] = {
            asset: self._balance(random, marks, asset, stake) for asset in held
        }
        if self.with_orders:
            open_ones = [
                market
                for market in alive
                if (ends := self.model.instruments[market].expires_at_us) is None or ends > ts_us
            ]
            markets = random.sample(open_ones, random.randint(0, min(len(open_ones), 3)))
            account["orders"] = [self._order(random, marks, market) for market in markets]
            account["leverage"] = {
                market: str(random.randint(1, 50)) for market in alive if random.random() < 0.5
            }
        return account

    def _price(self, marks: dict[str, Any], feed: str | None) -> float:
        if feed is None:
            return 1.0
        mark = marks[feed]
        return float(mark if isinstance(mark, str) else mark["price"])

    def _mark(self, marks: dict[str, Any], contract: InstrumentModel) -> float:
        return self._price(marks, contract.mark_feed or contract.forward_feed)

    def _size(self, random: Random, marks: dict[str, Any], contract: InstrumentModel) -> str:
        """Return a size worth 10 to 1,000,000, lots and cost far within limits."""
        each = float(contract.face) if contract.face is not None else self._mark(marks, contract)
        lots = 10.0 ** random.uniform(1, 6) / each / float(contract.lot)
        lots = min(max(1, round(lots)), 10**14)
        return f"{Decimal(contract.lot) * lots:f}"

    def _position(self, random: Random, marks: dict[str, Any], market: str) -> dict[str, str]:
        contract = self.model.instruments[market]
        size = self._size(random, marks, contract)
        places = -self.model.assets[contract.settles_in].quantum_exponent
        mark = self._mark(marks, contract)
        entry = mark * random.choice([1.0, random.uniform(0.95, 1.05), random.uniform(0.2, 3.0)])
        if contract.kind == "option":
            entry *= random.uniform(0.0, 0.3)
        cost = float(size) * entry
        if contract.face is not None:
            cost = float(size) * float(contract.face) / entry
        sign = random.choice(["", "-"])
        position = {"market": market, "size": sign + size}
        if contract.kind == "option" and contract.settlement == "premium" and random.random() < 0.5:
            return position
        position["cost_basis"] = _text(float(sign + "1") * cost, places)
        if contract.funding_feed is not None and random.random() < 0.8:
            # what is owed is at most a few percent of the notional
            a_lot = cost / float(size) * float(contract.lot)
            now = Decimal(marks[contract.funding_feed])
            then = now + Decimal(_text(a_lot * random.uniform(-0.05, 0.05), 12))
            position["funding_index"] = f"{then:f}"
        return position

    def _balance(self, random: Random, marks: dict[str, Any], asset: str, stake: float) -> str:
        given = self.model.assets[asset]
        coins = stake * 10.0 ** random.uniform(-1, 1) / self._price(marks, given.index_feed)
        coins = min(coins, 2.0**51 * 10.0**given.quantum_exponent)
        return _text(coins * random.choice([1, 1, 1, -1]), -given.quantum_exponent)

    def _order(self, random: Random, marks: dict[str, Any], market: str) -> dict[str, Any]:
        contract = self.model.instruments[market]
        order: dict[str, Any] = {"market": market, "count": random.randint(1, 5)}
        for side in ("bid", "ask"):
            is_there = random.random() < 0.7
            size = self._size(random, marks, contract) if is_there else "0"
            price = self._mark(marks, contract) * random.uniform(0.5, 1.5)
            if contract.face is not None:
                price = float(contract.face)
            order |= {f"{side}_size": size, f"{side}_value": _text(float(size) * price, 6)}
        return order
