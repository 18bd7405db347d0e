"""Tables of the preferences stage."""

import dataframely as dy


class ColdStartPreference(dy.Schema):
    """Of each citation's two questions, the one whose contexts fit the citation best in MeSH."""

    pmid = dy.Int64(primary_key=True, min=1, description="Source citation")
    branch = dy.String(description="Home branch of the source")
    chosen_role = dy.String(nullable=True, description="Generator of the chosen question")
    chosen_question = dy.String(nullable=True, description="The chosen question")
    chosen_score = dy.Float64(nullable=True, description="Its MeSH score, 0 to 1; null: not scorable")
    rejected_role = dy.String(nullable=True, description="Generator of the rejected question")
    rejected_question = dy.String(nullable=True, description="The rejected question")
    rejected_score = dy.Float64(nullable=True, description="Its MeSH score")
    margin = dy.Float64(nullable=True, description="Chosen minus rejected score")
    kept = dy.Bool(description="Whether the pair is a preference to learn from")
    reason = dy.String(nullable=True, description="Why a pair is not kept")
    measure = dy.String(description="Similarity of two descriptors: lin, resnik, jiang_conrath or rel")
    ic_source = dy.String(description="Information content: corpus or intrinsic")
    ic_snapshot = dy.String(description="MeSH year and number of citations behind it")
