"""Words the extractive agents know: verbs of biomedical findings with their forms, names, function words."""

import re

_VERBS = """
abolish abrogate accelerate accentuate accept accompany accumulate achieve acquire activate adapt add affect
aggravate agree alleviate allow alter ameliorate amplify antagonize appear apply arise arrest assess assemble
associate attenuate attract augment avoid become begin behave belong benefit boost bring broaden carry catalyze
change characterize cleave close coincide colocalize combine compare compensate compete complement
compromise concentrate confer confirm constitute constrain contain contribute convert cooperate coordinate
correlate counteract create cure damp dampen deactivate decline deepen define degrade delay delineate deliver
demonstrate depend deplete deposit deregulate derive describe destabilize destroy detect deteriorate determine
develop diagnose dictate differ differentiate diminish direct discriminate disrupt dissociate distinguish
disturb diverge drive effect elevate elicit eliminate elucidate embody emerge employ enable encode encourage
engage enhance enlarge enrich ensure enter entail escape establish evoke evolve exacerbate exceed excite exert
exhibit exist expand explain exploit exploit extend facilitate fail favor favour fit fluctuate follow foster
generate give govern grow harbor harbour harm heighten help hide hinder hold identify illuminate illustrate
impair impede implicate imply improve inactivate include increase incorporate indicate induce infect infer
infiltrate inflict influence inform inhibit initiate instruct integrate intensify interact interfere internalize
intersect intervene introduce invade invoke involve ionize justify keep know lack lead lengthen lessen lie
limit localize lose lower maintain make manifest matter maximize mediate meet merit migrate mimic minimize
mitigate mobilize modify modulate necessitate need negate neutralize normalize obey obscure obstruct obtain occur
offer oligomerize open operate originate oscillate outperform outweigh overcome overexpress overlap
participate penetrate perform permit perpetuate persist perturb phenocopy phosphorylate play pose possess
potentiate precede precipitate preclude predict predispose predominate preserve prevent prime proceed produce
progress project prolong promote propagate prove protect provide provoke quantify quench raise reach react reactivate
recapitulate receive recognize recover recruit reduce reflect refute regulate reinforce relate release relieve
rely remain remodel remove render repair replace repress reproduce require rescue reshape reside resist resolve
respond restore restrain restrict retain retard reveal reverse rewire rise safeguard scavenge secrete see
select sense sensitize separate serve shape share shed shift shorten show signal silence simplify slow
solve spare spread stabilize stand start stimulate strengthen stress stratify subside substitute
succeed suffer suggest suit support suppress surpass survive sustain synergize take target tend terminate tether
tolerate track trigger transcend transduce transform transmit treat trend turn uncouple uncover undergo
underlie undermine underpin unmask unravel unveil upregulate downregulate up-regulate down-regulate utilize
vary warrant weaken widen worsen yield bind block cause cluster contact control couple cross-react decrease
deserve die disappear discourage display double drop ease form function gain halt highlight hamper hinge host
impact import improve inhibit kill lag link mark mask maturate measure model oppose outnumber override
oxidize pass peak point possess power promise promote protect pull push question rank refine report rest result
return rupture sequester slow spike split stain stem structure study summarize switch synchronize tag think
transit travel trap trim tune use wane work benefit characterise stabilise recognise localise utilise sensitise
minimise maximise catalyse hydrolyze antagonise destabilise neutralise normalise mobilise potentiate
acidify methylate acetylate ubiquitinate glycosylate dimerize tetramerize polymerize aggregate misfold
represent reside rescue ameliorate overlie correspond cover comprise consist differ originate present
""".split()

# Forms that are more often nouns: they count as verbs only where the words around them say so.
_NOUNLIKE = """
accord accumulate address aggregate aim alarm answer approach arrest assay benefit block boost cause change
cluster concern conjugate contact contrast control correlate cost couple cut damage decline decrease defect delay
deposit design detail direct display double drive drop effect escape estimate evidence exhibit fail favor favour feature
fit focus form function gain group guide harbor harm help highlight hinge hold host impact import increase
influence initiate interface isolate lack lag lead level limit link list mark mask match matter measure
model need offer open order outcome overlap pass peak phenocopy place plan play point pose power present
presage process produce profile progress project promise pull push question range rank rate reach record
release remain repair report rescue rest result return reverse rise risk rupture sample score scale scavenge sense
separate shape share shed shift signal silence slow spare spike split spread stain stand start state stem stop
stress structure study substrate subject support surface survey switch tag target taste test tether thought time
trace track transfer transit transition transport trap treat trend trigger tune turn use vary view walk
work worth yield target associate complement compromise conduct contract couple extract lower mimic
model permit precipitate prime record reserve sequester surface survive transform treat cover
""".split()

_IRREGULAR = {
    "arise": ("arose", "arisen"),
    "become": ("became", "become"),
    "begin": ("began", "begun"),
    "bind": ("bound", "bound"),
    "bring": ("brought", "brought"),
    "cut": ("cut", "cut"),
    "drive": ("drove", "driven"),
    "fit": ("fit", "fit"),
    "find": ("found", "found"),
    "give": ("gave", "given"),
    "grow": ("grew", "grown"),
    "hide": ("hid", "hidden"),
    "hold": ("held", "held"),
    "keep": ("kept", "kept"),
    "know": ("knew", "known"),
    "lead": ("led", "led"),
    "lie": ("lay", "lain"),
    "lose": ("lost", "lost"),
    "make": ("made", "made"),
    "meet": ("met", "met"),
    "overcome": ("overcame", "overcome"),
    "override": ("overrode", "overridden"),
    "prove": ("proved", "proven"),
    "rise": ("rose", "risen"),
    "see": ("saw", "seen"),
    "shed": ("shed", "shed"),
    "show": ("showed", "shown"),
    "split": ("split", "split"),
    "spread": ("spread", "spread"),
    "stand": ("stood", "stood"),
    "take": ("took", "taken"),
    "think": ("thought", "thought"),
    "undergo": ("underwent", "undergone"),
    "underlie": ("underlay", "underlain"),
}
_DOUBLING = {"drop", "fit", "lag", "permit", "refer", "stem", "tag", "trap", "trim", "control", "signal", "model"}
_DOUBLING |= {"infer", "transfer", "confer", "compel", "dispel", "spur", "occur", "overlap", "split", "transmit"}


def _third_person(verb: str) -> str:
    if re.search(r"(s|x|z|ch|sh|o)$", verb):
        return verb + "es"
    return verb[:-1] + "ies" if re.search(r"[^aeiou]y$", verb) else verb + "s"


def _past(verb: str) -> str:
    if verb.endswith("e"):
        return verb + "d"
    if re.search(r"[^aeiou]y$", verb):
        return verb[:-1] + "ied"
    return (verb + verb[-1] if verb in _DOUBLING else verb) + "ed"


BASES = frozenset(_VERBS)
NOUNLIKE = frozenset(_NOUNLIKE)
THIRD_PERSON = {_third_person(verb): verb for verb in _VERBS} | {"underlies": "underlie", "lies": "lie"}
PAST = {(_IRREGULAR[verb][0] if verb in _IRREGULAR else _past(verb)): verb for verb in [*_VERBS, "find"]}
PAST |= {"did": "do", "had": "have", "dropped": "drop", "controlled": "control"}
PARTICIPLES = frozenset(_IRREGULAR[verb][1] for verb in _IRREGULAR) | {"been", "had", "done"}
# Past forms that are no participle, and so are finite wherever they stand.
FINITE_PAST = frozenset(past for past, done in _IRREGULAR.values() if past != done) - {"lay", "saw", "proved"}

BE = frozenset("is are was were".split())
HAVE = frozenset("has have had".split())
DO = frozenset("do does did".split())
MODALS = frozenset("can could may might must should will would cannot".split())
AUXILIARIES = BE | HAVE | DO | MODALS

DETERMINERS = frozenset(
    "a an the this that these those its their his her our no any some each every all both more less fewer many "
    "several most another either neither such higher lower greater smaller".split()
)
PREPOSITIONS = frozenset(
    "of in on at by for with from to into onto within without during after before between among against "
    "across through throughout via over under above below upon toward towards around about as than per despite "
    "following using versus vs vs. beyond along amid until since like unlike up down off out".split()
)
CONJUNCTIONS = frozenset("and or but nor".split())
RELATIVES = frozenset("that which who whose whom where".split())
SUBORDINATORS = frozenset(
    "whether how when while because if although though whereas why what once unless until as since".split()
)

PLURAL_NOUNS = frozenset(
    "mice rats people children women men patients bacteria data criteria phenomena microglia astroglia mitochondria "
    "ganglia fungi stimuli nuclei alleles media larvae metastases diagnoses analyses hypotheses species "
    "adults elderly feet teeth ova loci foci bacilli cocci fimbriae vertebrae antisera genera strata spectra "
    "glia both".split()
)
_SINGULAR_S = re.compile(
    r"(ss|us|is|ics|itis|osis|asis|ysis|news|series|diabetes|herpes|rabies|scabies|measles|mellitus|caries|"
    r"ous|species|pancreas|atlas|lens|bias|gas|pus|biceps|triceps|sepsis|aids|kras|ras|nras|hras|'s|’s)$",
    re.I,
)

# Words that keep their capital where the abstract does not tell.
NAMES = frozenset(
    """alzheimer parkinson huntington lewy down crohn hodgkin barrett cushing graves hashimoto kaposi sjogren
    wilson pick creutzfeldt jakob tourette turner marfan epstein barr ewing burkitt raynaud bell hirschsprung
    kawasaki guillain asperger meniere addison paget gaucher fabry pompe tay sachs niemann duchenne becker
    charcot marie leber usher rett angelman prader willi klinefelter schwann purkinje golgi kupffer langerhans
    leydig sertoli bowman wernicke korsakoff broca brodmann braak gleason apgar glasgow framingham mendelian
    bayesian markov monte carlo cox kaplan meier gaussian fourier raman western southern northern caesarean
    escherichia salmonella staphylococcus streptococcus helicobacter mycobacterium plasmodium candida
    aspergillus drosophila caenorhabditis saccharomyces arabidopsis bacteroides lactobacillus bifidobacterium
    clostridium pseudomonas klebsiella listeria chlamydia toxoplasma leishmania trypanosoma borrelia xenopus
    bacillus akkermansia porphyromonas ginkgo panax cannabis zika ebola notch wnt hedgehog smad toll
    africa african america american asia asian europe european australia australian canada canadian china
    chinese japan japanese korea korean india indian iran iranian iraq israel israeli egypt egyptian turkey
    turkish germany german france french italy italian spain spanish portugal portuguese greece greek sweden
    swedish norway norwegian denmark danish finland finnish iceland dutch netherlands belgium swiss
    switzerland austria austrian poland polish russia russian ukraine brazil brazilian mexico mexican chile
    argentina peru colombia nigeria nigerian kenya uganda ghana ethiopia tanzania malawi zambia taiwan taiwanese
    thailand thai vietnam malaysia singapore indonesia pakistan bangladesh nepal arabia saudi jordan lebanon
    tunisia morocco algeria english british england scotland scottish wales ireland irish london britain
    california texas minnesota madrid nun rotterdam caucasian hispanic latino jewish ashkenazi arab medicare
    medicaid medline pubmed cochrane twitter facebook google internet january february march april june july
    august september october november december monday i ii iii iv united states kingdom york hong kong
    """.split()
)

STUDY_NOUNS = (
    r"(?:stud(?:y|ies)|trials?|reviews?|survey|meta-analys[ie]s|analys[ie]s|report|case reports?|case series|"
    r"investigation|experiments?|comparison|audit|follow-up|evaluation|assessment|overview|examination)"
)


def is_plural_noun(word: str) -> bool:
    """Whether a lower-case noun looks plural."""
    return word in PLURAL_NOUNS or (len(word) > 2 and word.endswith("s") and not _SINGULAR_S.search(word))


def base_of_third_person(word: str) -> str | None:
    """The infinitive of a verb in the third person singular, None where it is no such verb."""
    if word in THIRD_PERSON:
        return THIRD_PERSON[word]
    if re.fullmatch(r"[a-z-]{2,}(izes|yzes|ulates|tivates|grates|ylates)", word):
        return word[:-1]
    if re.search(r"[a-z]{2}ifies$", word):
        return word[:-3] + "y"
    return None
