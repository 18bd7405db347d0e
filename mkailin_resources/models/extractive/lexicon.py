"""Words the extractive agents know: verbs of biomedical findings with their forms, names, function words."""

import re


def words(text: str) -> frozenset[str]:
    """The words of a text as a set."""
    return frozenset(text.split())


def either(text: str) -> str:
    """A pattern for any of the words of a text; an underscore stands for a space within one."""
    return f"(?:{'|'.join(text.split())})".replace("_", " ")


BASES = words("""
ablate abolish abrogate accelerate accentuate accompany accumulate acetylate achieve acidify acquire
activate adapt add affect aggravate aggregate agree alleviate allocate allow alter ameliorate amplify
antagonise antagonize appear apply arise arrest assemble assess associate attenuate attract augment avoid
bear become begin behave belong benefit bestow bind block boost bring broaden carry catalyse catalyze cause
change characterise characterize circumvent clarify cleave close cluster coincide colocalize colonize
combine compare compensate compete complement complicate comprise compromise concentrate confer confirm
confound consist constitute constrain contact contain contribute control convert cooperate coordinate
correlate correspond counteract couple cover create cross-react culminate cure dampen deactivate decline
decrease deepen define degrade delay delineate deliver demonstrate depend deplete deposit deprive deregulate
derive describe deserve destabilise destabilize destroy detect deteriorate determine detoxify develop
dictate differ differentiate dimerize diminish direct disappear discern discourage discriminate dislodge
display disrupt dissociate distinguish disturb diverge dominate down-regulate downregulate drain drive drop
ease effect elevate elicit eliminate elucidate embody emerge emit employ enable encode encourage engage
enhance enlarge enrich ensure entail enter epitomize escape establish evade evaluate evoke evolve exacerbate
examine exceed excite exert exhibit exist expand explain exploit extend facilitate fail favor favour find
fit fluctuate follow form foster function gain generate give glycosylate govern grow guard halt hamper
harbor harbour harm heighten help hide highlight hijack hinder hinge hold host hydrolyze identify illuminate
illustrate immobilize impact impair impede impinge implicate imply import improve inactivate incite include
incorporate increase indicate induce infect infer infiltrate inflict influence inform inhibit initiate
inspire instigate instruct integrate intensify interact interfere internalize interrupt intersect intervene
intoxicate introduce invade investigate invoke involve ionize justify keep kill kindle know lack lag lead
lengthen lessen liberate lie limit link localise localize lose lower maintain make manifest mask matter
maturate maximise maximize measure mediate meet merit methylate migrate mimic minimise minimize misfold
mitigate mobilise mobilize model modify modulate necessitate need negate neutralise neutralize normalise
normalize nucleate obey obscure obstruct obtain occur offer oligomerize open operate oppose orchestrate
originate oscillate outnumber outperform outweigh overcome overexpress overlap overlie override oxidize
participate pass pave peak penetrate perceive perform permeabilize permit perpetuate persist perturb
phenocopy phosphorylate play point polymerize pose possess potentiate power precede precipitate preclude
precondition predict predispose predominate presage present preserve prevent prime proceed produce progress
project prolong promise promote prompt propagate propose protect prove provide provoke pull push quantify
quench question raise rank reach react reactivate recapitulate receive recognise recognize recommend recover
recruit reduce refine reflect refute regulate reinforce relate release relieve rely remain remodel remove
render repair replace report represent repress reproduce reprogram require rescue resemble reshape reside
resist resolve respire respond rest restore restrain restrict restructure result retain retard return reveal
reverse rewire rise rival rupture safeguard scavenge sculpt secrete seem segregate select sense sensitise
sensitize separate sequester serve sever shape share shed shield shift shorten show signal silence simplify
skew slow soften solve spare specify spike split spread stabilise stabilize stain stand start stem stimulate
stratify strengthen stress structure study subside substitute succeed suffer suggest suit summarize support
suppress surpass survive sustain sweep swell switch synchronize synergize tackle take target tend terminate
tether tetramerize tolerate track transcend transduce transfer transform transit transmit transport trap
travel treat trend trigger trim tune turn ubiquitinate uncouple uncover undergo underlie underline undermine
underpin underscore unleash unmask unravel unveil up-regulate upregulate use utilise utilize vary wane
warrant weaken widen worsen yield
""")

# Forms that are more often nouns: they count as verbs only where the words around them say so.
NOUNLIKE = words("""
address aggregate aim alarm answer approach arrest assay associate benefit block boost cause change cluster
complement compromise concern conjugate contact contrast control correlate cost couple cover cut damage
decline decrease defect delay deposit design detail direct display double drain drive drop effect escape
estimate favor favour feature fit focus form function gain group guard guide harbor harm help highlight
hinge hold host impact import increase influence interface isolate lack lag lead level license limit link
list mark mask match matter measure mimic model need offer open order outcome overlap pass peak permit
phenocopy place plan play point pose power precipitate presage present prime process produce profile
progress project promise prompt pull push question range rank rate reach record release remain repair report
rescue reserve rest result return reverse rise risk rival rupture sample scale score seed sense separate
sequester shape share shed shield shift signal silence slow sort spare spike split spread stain stand start
state stem stop stress structure study subject substrate support surface survey sweep switch tag target
taste test tether thought time trace track transfer transit transition transport trap trend trigger tune
turn use vary view walk worth yield
""")

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
_DOUBLING = words(
    "confer control drop fit infer lag model occur overlap permit reprogram signal split stem transfer "
    "transmit transit trap trim"
)


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


# Their infinitive is hardly ever a noun, though the third person looks like a plural.
BASE_NOUNLIKE = NOUNLIKE - words("associate aggregate correlate complement mimic isolate differ")
THIRD_PERSON = {_third_person(verb): verb for verb in BASES}
PAST = {(_IRREGULAR[verb][0] if verb in _IRREGULAR else _past(verb)): verb for verb in BASES}
PAST |= {"did": "do", "had": "have"}
PARTICIPLES = frozenset(_IRREGULAR[verb][1] for verb in _IRREGULAR) | {"been", "had", "done"}
# Past forms that are no participle, and so are finite wherever they stand.
FINITE_PAST = frozenset(past for past, done in _IRREGULAR.values() if past != done) - {"lay", "saw", "proved"}

BE = words("is are was were")
HAVE = words("has have had")
DO = words("do does did")
MODALS = words("can could may might must should will would cannot")
AUXILIARIES = BE | HAVE | DO | MODALS

DETERMINERS = words(
    "a an the this that these those its their his her our no any some each every all both more less fewer "
    "many several most another either neither such higher lower greater smaller"
)
PREPOSITIONS = words(
    "of in on at by for with from to into onto within without during after before between among against "
    "across through throughout via over under above below upon toward towards around about as than per "
    "despite following using versus vs vs. beyond along amid until since like unlike up down off out"
)
CONJUNCTIONS = words("and or but nor")
RELATIVES = words("that which who whose whom where")
SUBORDINATORS = words(
    "whether how when while whilst because if although though whereas why what once unless until as since"
)

PLURAL_NOUNS = words(
    "mice rats people children women men patients bacteria data criteria phenomena microglia astroglia "
    "mitochondria ganglia fungi stimuli nuclei alleles media larvae metastases diagnoses analyses "
    "hypotheses species adults elderly feet teeth ova loci foci bacilli cocci fimbriae vertebrae antisera "
    "genera strata spectra glia both"
)
_SINGULAR_S = re.compile(
    r"(ss|us|is|ics|itis|osis|asis|ysis|news|series|diabetes|herpes|rabies|scabies|measles|mellitus|caries|"
    r"ous|species|pancreas|atlas|lens|bias|gas|pus|biceps|triceps|sepsis|aids|kras|ras|nras|hras|'s|"
    r"\u2019s)$",
    re.I,
)

# Words that keep their capital where the abstract does not tell.
NAMES = words(
    "alzheimer parkinson huntington lewy crohn hodgkin barrett cushing graves hashimoto kaposi sjogren "
    "wilson pick creutzfeldt jakob tourette turner marfan epstein barr ewing burkitt raynaud bell "
    "hirschsprung kawasaki guillain asperger meniere addison paget gaucher fabry pompe tay sachs niemann "
    "duchenne becker charcot marie leber usher rett angelman prader willi klinefelter schwann purkinje "
    "golgi kupffer langerhans leydig sertoli bowman wernicke korsakoff broca brodmann braak gleason apgar "
    "glasgow framingham mendelian bayesian markov monte carlo cox kaplan meier gaussian fourier raman "
    "western southern northern caesarean escherichia salmonella staphylococcus streptococcus helicobacter "
    "mycobacterium plasmodium candida aspergillus drosophila caenorhabditis saccharomyces arabidopsis "
    "bacteroides lactobacillus bifidobacterium clostridium pseudomonas klebsiella listeria chlamydia "
    "toxoplasma leishmania trypanosoma borrelia xenopus bacillus akkermansia porphyromonas ginkgo panax "
    "cannabis zika ebola notch wnt hedgehog smad toll africa african america american asia asian europe "
    "european australia australian canada canadian china chinese japan japanese korea korean india indian "
    "iran iranian iraq israel israeli egypt egyptian turkey turkish germany german france french italy "
    "italian spain spanish portugal portuguese greece greek sweden swedish norway norwegian denmark danish "
    "finland finnish iceland dutch netherlands belgium swiss switzerland austria austrian poland polish "
    "russia russian ukraine brazil brazilian mexico mexican chile argentina peru colombia nigeria nigerian "
    "kenya uganda ghana ethiopia tanzania malawi zambia taiwan taiwanese thailand thai vietnam malaysia "
    "singapore indonesia pakistan bangladesh nepal arabia saudi jordan lebanon tunisia morocco algeria "
    "english british england scotland scottish wales ireland irish london britain california texas "
    "minnesota madrid nun rotterdam caucasian hispanic latino jewish ashkenazi arab medicare medicaid "
    "medline pubmed cochrane twitter facebook google internet january february march april june july "
    "august september october november december monday"
)

# A pattern for the nouns that name a kind of study.
STUDY_NOUNS = either(
    "analysis analyses assessment audit case_report case_reports case_series comparison evaluation "
    "examination experiment experiments follow-up investigation meta-analysis meta-analyses overview "
    "report review reviews study studies survey trial trials"
)


def is_plural_noun(word: str) -> bool:
    """Whether a lower-case noun looks plural."""
    if word in PLURAL_NOUNS or re.search(
        r"(metr|dynam|kinet|mechan|statist|terist|top|clin|biot|mimet|psychot|lept|lyt)ics$", word
    ):
        return True
    return len(word) > 2 and word.endswith("s") and not _SINGULAR_S.search(word)


def base_of_third_person(word: str) -> str | None:
    """The infinitive of a verb in the third person singular, None where it is no such verb."""
    if word in THIRD_PERSON:
        return THIRD_PERSON[word]
    if re.fullmatch(r"[a-z-]{2,}(izes|yzes|ulates|tivates|grates|ylates)", word):
        return word[:-1]
    if re.search(r"[a-z]{2}ifies$", word):
        return word[:-3] + "y"
    return None
