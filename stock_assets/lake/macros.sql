-- Macros that ask a row of `forecasts` for more than its seven quantiles. Here and in any DuckDB:
--
--     select ticker, horizon, probability_above(f, 300) from forecasts f where day = '2026-06-30';
--
-- f is the row: the alias of `forecasts`, or of any query that keeps its columns last_price, sigma
-- and return_q05 ... return_q95. Prices are in the currency and the shares of the forecast's day.
-- The macros to use are at the end, after what they are made of. The formulas are those of
-- stock_assets/forecasting/distribution.py, which says where they are from: the log return is linear
-- in the log-odds of its probability between the quantiles, and the outermost segments go on beyond
-- them.

create or replace macro forecast_log_odds(p) as ln(p::double / (1 - p::double));

-- The log return that leads to `price`; no price is below 0.
create or replace macro forecast_return(f, price) as
    case
        when price > 0 then ln(price::double / f.last_price)
        when price <= 0 then '-inf'::double
    end;

-- Slopes of the tails, in log return over log-odds: of the outermost segment or, where its two
-- quantiles coincide, of the logistic distribution with the forecast's sigma.
create or replace macro forecast_lower_slope(f) as
    case
        when f.return_q10 > f.return_q05
            then (f.return_q10 - f.return_q05) / (forecast_log_odds(0.1) - forecast_log_odds(0.05))
        else sqrt(3) / pi() * greatest(f.sigma, 1e-12)
    end;

create or replace macro forecast_upper_slope(f) as
    case
        when f.return_q95 > f.return_q90
            then (f.return_q95 - f.return_q90) / (forecast_log_odds(0.95) - forecast_log_odds(0.9))
        else sqrt(3) / pi() * greatest(f.sigma, 1e-12)
    end;

-- Whether log return x lies in the segment that ends at `quantile`. A quantile itself belongs to
-- the segment before it when what is asked is "below", and to the next when it is "at or below".
create or replace macro forecast_ends_at(x, quantile, below) as
    x < quantile or (below and x = quantile);

-- Where x lies between two quantiles, in log-odds.
create or replace macro forecast_between(x, low, high, low_probability, high_probability) as
    forecast_log_odds(low_probability)
    + (x - low)
    * (forecast_log_odds(high_probability) - forecast_log_odds(low_probability)) / (high - low);

-- Probability of a log return below x, or at or below it.
create or replace macro forecast_probability(f, x, below) as
    1 / (1 + exp(-case
        when x is null then null
        when forecast_ends_at(x, f.return_q05, below)
            then forecast_log_odds(0.05) + (x - f.return_q05) / forecast_lower_slope(f)
        when forecast_ends_at(x, f.return_q10, below)
            then forecast_between(x, f.return_q05, f.return_q10, 0.05, 0.1)
        when forecast_ends_at(x, f.return_q25, below)
            then forecast_between(x, f.return_q10, f.return_q25, 0.1, 0.25)
        when forecast_ends_at(x, f.return_q50, below)
            then forecast_between(x, f.return_q25, f.return_q50, 0.25, 0.5)
        when forecast_ends_at(x, f.return_q75, below)
            then forecast_between(x, f.return_q50, f.return_q75, 0.5, 0.75)
        when forecast_ends_at(x, f.return_q90, below)
            then forecast_between(x, f.return_q75, f.return_q90, 0.75, 0.9)
        when forecast_ends_at(x, f.return_q95, below)
            then forecast_between(x, f.return_q90, f.return_q95, 0.9, 0.95)
        else forecast_log_odds(0.95) + (x - f.return_q95) / forecast_upper_slope(f)
    end));

-- The log return at some log-odds between those of two quantiles.
create or replace macro forecast_return_between(
    odds, low, high, low_probability, high_probability
) as
    least(
        high,
        low
        + (odds - forecast_log_odds(low_probability))
        * (high - low)
        / (forecast_log_odds(high_probability) - forecast_log_odds(low_probability))
    );

create or replace macro forecast_return_quantile(f, odds) as
    case
        when odds < forecast_log_odds(0.05)
            then f.return_q05 + (odds - forecast_log_odds(0.05)) * forecast_lower_slope(f)
        when odds < forecast_log_odds(0.1)
            then forecast_return_between(odds, f.return_q05, f.return_q10, 0.05, 0.1)
        when odds < forecast_log_odds(0.25)
            then forecast_return_between(odds, f.return_q10, f.return_q25, 0.1, 0.25)
        when odds < forecast_log_odds(0.5)
            then forecast_return_between(odds, f.return_q25, f.return_q50, 0.25, 0.5)
        when odds < forecast_log_odds(0.75)
            then forecast_return_between(odds, f.return_q50, f.return_q75, 0.5, 0.75)
        when odds < forecast_log_odds(0.9)
            then forecast_return_between(odds, f.return_q75, f.return_q90, 0.75, 0.9)
        when odds < forecast_log_odds(0.95)
            then forecast_return_between(odds, f.return_q90, f.return_q95, 0.9, 0.95)
        else f.return_q95 + (odds - forecast_log_odds(0.95)) * forecast_upper_slope(f)
    end;

-- To use ----------------------------------------------------------------------------------------

-- Probability that the price ends above `price`.
create or replace macro probability_above(f, price) as
    1 - forecast_probability(f, forecast_return(f, price), false);

-- Probability that the price ends below `price`.
create or replace macro probability_below(f, price) as
    forecast_probability(f, forecast_return(f, price), true);

-- Roughly the probability that trading reaches `price` on the way: by the reflection principle,
-- off by some percentage points (see PriceDistributions.probability_touch).
create or replace macro probability_touch(f, price) as
    case
        when price::double > f.last_price then least(1.0::double, 2 * probability_above(f, price))
        when price::double < f.last_price then least(1.0::double, 2 * probability_below(f, price))
        when price::double = f.last_price then 1.0::double
    end;

-- The price that is not exceeded with `probability`: the inverse of 1 - probability_above.
create or replace macro forecast_quantile(f, probability) as
    case
        when probability > 0 and probability < 1
            then f.last_price * exp(forecast_return_quantile(f, forecast_log_odds(probability)))
        when probability is not null
            then error('forecast_quantile: a probability must be above 0 and below 1')
    end;

-- The central interval that holds the closing price with `probability`, as a struct of low, high.
create or replace macro expected_range(f, probability) as
    {
        'low': forecast_quantile(f, round((1 - probability::double) / 2, 12)),
        'high': forecast_quantile(f, 1 - round((1 - probability::double) / 2, 12))
    };
